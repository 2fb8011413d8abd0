"""What a world of tensors is: three functions of its state."""

from typing import Protocol

import torch
from torch import Tensor

from dqn.types import Spec


class World(Protocol):
    """E environments as functions of tensors: (s′, r, end) = step(s, a), o = observe(s), s₀ = reset().

    A state is a dict of tensors [E, ...] that say all there is to know. The functions are pure: they write into no
    tensor they are given, shapes are fixed, nothing is asked of the device, and every call draws the same number of
    random numbers, all from `generator`. So a step can be traced, compiled and captured with what surrounds it.
    Time limits and resets are the caller's: an episode is to be cut after `limit` steps (0: never), and a step after
    an end gives numbers without meaning.
    """

    spec: Spec
    limit: int

    def reset(self, num_envs: int, generator: torch.Generator, device: torch.device) -> dict[str, Tensor]:
        """First states of `num_envs` episodes."""
        ...

    def step(
        self, state: dict[str, Tensor], action: Tensor, generator: torch.Generator
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """State and action [E] int64 → next state, reward [E] float, terminated [E] bool."""
        ...

    def observe(self, state: dict[str, Tensor]) -> Tensor:
        """What is seen of a state: [E, *spec.obs_shape] of the spec's dtype, in memory of its own."""
        ...
