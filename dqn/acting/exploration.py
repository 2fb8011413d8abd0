"""Exploration: how to act on values.

An exploration has a `name` (of the number that varies), its `rate(env_steps)`, and picks actions:
(values, rate 0-D, generator) → [E] int64. It never picks an illegal action. What changes lies in tensors, changed in
place, or in `rate`.
"""

from collections.abc import Callable
from math import inf

import torch
from torch import Tensor

from dqn.ops.backups import log_prior
from dqn.ops.schedules import Constant
from dqn.types import Values


class EpsilonGreedy:
    """With probability ε a uniformly random legal action, else argmax q; a coin of its own for every environment.

    Mnih et al. (2015), alg. 1. `epsilon` is a schedule over env_steps with values in [0, 1], or a number. With `ladder`
    α > 0 environment i of E has ε_i = ε^(1 + α·i/(E−1)): Horgan et al. (2018), Ape-X, §4 (ε 0.4, α 7).
    """

    name = "epsilon"

    def __init__(self, epsilon: Callable[[int], float] | float, ladder: float = 0.0):
        epsilon = epsilon if callable(epsilon) else Constant(epsilon)
        for value in (epsilon(0), *(epsilon(10**power) for power in range(16))):  # also of one that ends in 0
            if not 0 <= value <= 1:
                raise ValueError(f"exploration.epsilon must stay in [0, 1], got {value}")
        if ladder < 0:
            raise ValueError(f"exploration.ladder must be ≥ 0, got {ladder}")
        self.rate, self.ladder = epsilon, float(ladder)

    def __call__(self, values: Values, rate: Tensor, generator: torch.Generator) -> Tensor:
        q, mask = values.q, values.mask
        envs, actions = q.shape
        coin = torch.rand(envs, device=q.device, generator=generator)
        if mask is None:
            other = torch.randint(actions, (envs,), device=q.device, generator=generator)
        else:
            other = (torch.rand(envs, actions, device=q.device, generator=generator) * mask).argmax(-1)
        if self.ladder and envs > 1:
            rate = rate ** (1 + self.ladder * torch.linspace(0, 1, envs, device=q.device))
        return torch.where(coin < rate, other, q.argmax(-1))


class Boltzmann:
    """Action a with probability softmax(q/τ)_a; `temperature` τ is a schedule over env_steps, or a number; positive.

    Sutton & Barto (2018), §2.8. Drawn as argmax(q/τ + Gumbel noise), so illegal actions never win.
    """

    name = "temperature"

    def __init__(self, temperature: Callable[[int], float] | float):
        temperature = temperature if callable(temperature) else Constant(temperature)
        for end in (temperature(0), temperature(10**15)):
            if not end > 0:
                raise ValueError(f"exploration.temperature must stay positive, got {end}")
        self.rate = temperature

    def __call__(self, values: Values, rate: Tensor, generator: torch.Generator) -> Tensor:
        return drawn(values.q / rate, generator)


class Guided:
    """Action a with probability π0(a|s) exp(q(s, a)/τ) / Z: the policy π0 that the environment gives, as a language
    model does, guided by the values.

    `temperature` τ is a schedule over env_steps, or a number; positive. In the first `base_steps` env_steps τ is
    infinite: the data are those of π0 itself. Drawn as argmax(log π0 + q/τ + Gumbel noise), or with `sample` false the
    likeliest. Evaluations and a loaded agent act in the same way, at the last temperature (`settled`).
    Todorov (2006); of language models Snell et al. (2022), ILQL, §4. Errors: ValueError for τ that is not positive.
    """

    name = "temperature"

    def __init__(self, temperature: Callable[[int], float] | float, base_steps: int = 0, sample: bool = True):
        self.temperature = temperature if callable(temperature) else Constant(temperature)
        for end in (self.temperature(0), self.temperature(10**15)):
            if not end > 0:
                raise ValueError(f"exploration.temperature must stay positive, got {end}")
        if base_steps < 0:
            raise ValueError(f"exploration.base_steps must be ≥ 0, got {base_steps}")
        self.base_steps, self.sample = base_steps, sample

    def rate(self, env_steps: int) -> float:
        return inf if env_steps < self.base_steps else self.temperature(env_steps)

    def settled(self, sample: bool | None = None) -> "Guided":
        """The policy that is evaluated and used: at the temperature that a long run ends with."""
        return Guided(self.temperature(10**15), 0, self.sample if sample is None else sample)

    def __call__(self, values: Values, rate: Tensor, generator: torch.Generator) -> Tensor:
        logits = log_prior(values) + values.q / rate
        return drawn(logits, generator) if self.sample else logits.argmax(-1)


def drawn(logits: Tensor, generator: torch.Generator) -> Tensor:
    """An action [...] with probability softmax(logits) [..., A], as argmax(logits + Gumbel noise). Gumbel (1954)."""
    uniform = torch.rand(logits.shape, device=logits.device, generator=generator)
    return (logits - torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7)))).argmax(-1)
