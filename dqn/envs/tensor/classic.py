"""The classic control problems: CartPole, Acrobot and MountainCar, with Gymnasium's constants."""

from math import pi

import torch
from torch import Tensor

from dqn.types import Spec

GRAVITY = 9.8  # m/s²


class Classic:
    """What the classic problems share: `dtype` (None: torch's default) of the state, the observation and the reward.

    Errors: ValueError for a dtype other than float32 and float64.
    """

    features, actions = 0, 0

    def __init__(self, dtype: torch.dtype | None = None):
        self.dtype = dtype or torch.get_default_dtype()
        if self.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"{type(self).__name__} needs dtype float32 or float64, got {dtype}")
        self.spec = Spec((self.features,), torch.empty(0, dtype=self.dtype).numpy().dtype, self.actions)

    def observe(self, state: dict[str, Tensor]) -> Tensor:
        """The whole state: [E, features]."""
        return state["state"].clone()


class CartPole(Classic):
    """A pole on a cart that is pushed left (0) or right (1) by F = ∓10 N, and the aim is that it does not fall.

    State and observation [E, 4]: x m, ẋ m/s, θ rad, θ̇ rad/s, at first uniform in ±0.05. Euler's method, 0.02 s a
    step: b = (F + m l θ̇² sin θ) / M, θ̈ = (g sin θ − b cos θ) / (l (4/3 − m cos² θ / M)), ẍ = b − m l θ̈ cos θ / M,
    with m = 0.1 kg, M = 1.1 kg, l = 0.5 m. Reward 1; ends at |x| > 2.4 m or |θ| > 12°. Barto, Sutton & Anderson
    (1983), equations of Florian (2007) without friction; Gymnasium's CartPole-v1.
    """

    features, actions, limit = 4, 2, 500
    POLE, TOTAL, LENGTH, FORCE, TICK = 0.1, 1.1, 0.5, 10.0, 0.02  # m kg, M kg, l m, N, s

    def reset(self, num_envs: int, generator: torch.Generator, device: torch.device) -> dict[str, Tensor]:
        """Uniform in ±0.05."""
        draw = torch.rand(num_envs, 4, generator=generator, dtype=self.dtype, device=device)
        return {"state": draw * 0.1 - 0.05}

    def step(
        self, state: dict[str, Tensor], action: Tensor, generator: torch.Generator
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """One step of 0.02 s."""
        old = state["state"]
        speed, angle, spin = old[:, 1], old[:, 2], old[:, 3]
        force = action.to(self.dtype) * (2 * self.FORCE) - self.FORCE
        sin, cos, moment = angle.sin(), angle.cos(), self.POLE * self.LENGTH
        push = (force + moment * spin.square() * sin) / self.TOTAL  # b
        inertia = self.LENGTH * (4 / 3 - self.POLE / self.TOTAL * cos.square())
        bend = (GRAVITY * sin - cos * push) / inertia  # θ̈
        pull = push - moment / self.TOTAL * bend * cos  # ẍ
        new = old + self.TICK * torch.stack([speed, pull, spin, bend], -1)
        fallen = (new[:, 0].abs() > 2.4) | (new[:, 2].abs() > 12 * 2 * pi / 360)
        return {"state": new}, torch.ones_like(speed), fallen


class Acrobot(Classic):
    """Two links hang from a joint; a torque of −1, 0 or 1 N m on the second joint is to swing the free end up.

    State [E, 4]: θ₁ rad from hanging down, θ₂ rad relative to the first link, both in ±π, θ̇₁ in ±4π rad/s, θ̇₂ in ±9π
    rad/s; at first uniform in ±0.1. Observation [E, 6]: cos θ₁, sin θ₁, cos θ₂, sin θ₂, θ̇₁, θ̇₂. Runge and Kutta's
    method of order 4, 0.2 s a step. Reward −1, and 0 at the end, −cos θ₁ − cos(θ₁ + θ₂) > 1. Sutton (1996), equations
    of Sutton & Barto (1998), §11.3; Gymnasium's Acrobot-v1.
    """

    features, actions, limit = 6, 3, 500
    TICK = 0.2  # s

    def reset(self, num_envs: int, generator: torch.Generator, device: torch.device) -> dict[str, Tensor]:
        """Uniform in ±0.1, in numbers of single precision whatever the dtype, as Gymnasium's."""
        draw = torch.rand(num_envs, 4, generator=generator, dtype=torch.float32, device=device)
        return {"state": (draw * 0.2 - 0.1).to(self.dtype)}

    def step(
        self, state: dict[str, Tensor], action: Tensor, generator: torch.Generator
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """One step of 0.2 s under a constant torque."""
        old, torque, tick = state["state"], action.to(self.dtype) - 1, self.TICK
        k1 = _acrobot(old, torque)
        k2 = _acrobot(old + tick / 2 * k1, torque)
        k3 = _acrobot(old + tick / 2 * k2, torque)
        k4 = _acrobot(old + tick * k3, torque)
        theta, speed = (old + tick / 6 * (k1 + 2 * k2 + 2 * k3 + k4)).split(2, -1)
        theta = theta - 2 * pi * (theta / (2 * pi)).round()
        spin1, spin2 = speed.unbind(-1)
        spins = [spin1.clamp(-4 * pi, 4 * pi), spin2.clamp(-9 * pi, 9 * pi)]
        new = torch.cat([theta, torch.stack(spins, -1)], -1)
        up = -theta[:, 0].cos() - theta.sum(-1).cos() > 1
        return {"state": new}, up.to(self.dtype) - 1, up

    def observe(self, state: dict[str, Tensor]) -> Tensor:
        """Angles by their cosine and sine: [E, 6]."""
        theta, speed = state["state"].split(2, -1)
        return torch.cat([torch.stack([theta.cos(), theta.sin()], -1).flatten(1), speed], -1)


def _acrobot(state: Tensor, torque: Tensor) -> Tensor:
    """d/dt (θ₁, θ₂, θ̇₁, θ̇₂) [E, 4] for links of mass, length and moment of inertia 1, their centres in the middle."""
    theta1, theta2, spin1, spin2 = state.unbind(-1)
    sin, cos = theta2.sin(), theta2.cos()
    d1, d2 = cos + 3.5, cos / 2 + 1.25
    ratio, phi2 = d2 / d1, GRAVITY / 2 * (theta1 + theta2).sin()
    phi1 = 1.5 * GRAVITY * theta1.sin() + phi2 - spin2 * (spin2 / 2 + spin1) * sin
    bend2 = (torque + ratio * phi1 - spin1.square() * sin / 2 - phi2) / (1.25 - d2 * ratio)
    bend1 = -ratio * bend2 - phi1 / d1
    return torch.stack([spin1, spin2, bend1, bend2], -1)


class MountainCar(Classic):
    """A car in a valley, too weak for the slope, pushed left (0), not (1) or right (2), is to swing itself up.

    State and observation [E, 2]: x in [−1.2, 0.6], v in ±0.07 a step; at first x is uniform in [−0.6, −0.4], v = 0.
    v ← v + 0.001 (a − 1) − 0.0025 cos 3x, x ← x + v, and v = 0 at the left wall. Reward −1; ends at x ≥ 0.5 with
    v ≥ 0. Moore (1990), constants of Sutton (1996); Gymnasium's MountainCar-v0.
    """

    features, actions, limit = 2, 3, 200

    def reset(self, num_envs: int, generator: torch.Generator, device: torch.device) -> dict[str, Tensor]:
        """At rest, uniform in [−0.6, −0.4]."""
        place = torch.rand(num_envs, generator=generator, dtype=self.dtype, device=device) * 0.2 - 0.6
        return {"state": torch.stack([place, torch.zeros_like(place)], -1)}

    def step(
        self, state: dict[str, Tensor], action: Tensor, generator: torch.Generator
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """One step of unit time."""
        place, speed = state["state"].unbind(-1)
        push = (action.to(self.dtype) - 1) * 0.001
        speed = (speed + push - 0.0025 * (3 * place).cos()).clamp(-0.07, 0.07)
        place = (place + speed).clamp(-1.2, 0.6)
        speed = torch.where(place <= -1.2, speed.clamp_min(0), speed)
        there = (place >= 0.5) & (speed >= 0)
        return {"state": torch.stack([place, speed], -1)}, -torch.ones_like(place), there
