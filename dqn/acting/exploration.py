"""Exploration: how to act on values.

An exploration has a `name` (of the number that varies), its `rate(env_steps)`, and picks actions:
(values, rate 0-D, generator) → [E] int64. It never picks an illegal action. What changes lies in tensors, changed in
place, or in `rate`.
"""

from collections.abc import Callable

import torch
from torch import Tensor

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
        uniform = torch.rand(values.q.shape, device=values.q.device, generator=generator)
        return (values.q / rate - torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7)))).argmax(-1)
