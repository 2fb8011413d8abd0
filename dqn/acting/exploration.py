"""Exploration: how to act on q."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class EpsilonGreedy:
    """With probability ε a uniformly random action, else argmax q; a coin of its own for every environment.

    Mnih et al. (2015), alg. 1. `epsilon(env_steps)` is a schedule with values in [0, 1].
    """

    def __init__(self, epsilon: Callable[[int], float]):
        for end in (epsilon(0), epsilon(10**15)):
            if not 0 <= end <= 1:
                raise ValueError(f"exploration.epsilon must stay in [0, 1], got {end}")
        self.epsilon = epsilon

    def __call__(self, q: Tensor, epsilon: Tensor, generator: torch.Generator) -> Tensor:
        """q [E, A], epsilon a 0-D tensor → action [E] int64."""
        envs, actions = q.shape
        coin = torch.rand(envs, device=q.device, generator=generator)
        other = torch.randint(actions, (envs,), device=q.device, generator=generator)
        return torch.where(coin < epsilon, other, q.argmax(-1))
