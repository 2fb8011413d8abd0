"""Samplers: which experience, how weighted.

A sampler draws B starts from the ring's FIFO: (slot [B], env [B], weight [B]).
"""

from __future__ import annotations

import torch
from torch import Tensor

from dqn.replay.ring import Ring


class Uniform:
    """Every legal start equally likely, with replacement, weight 1. Lin (1992); Mnih et al. (2015).

    `batch_size` B > 0; an empty ring cannot be sampled (the trainer asks `len(ring)` first).
    """

    def __init__(self, batch_size: int):
        if batch_size < 1:
            raise ValueError(f"batch_size must be ≥ 1, got {batch_size}")
        self.batch_size = batch_size

    def sample(self, ring: Ring, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        count = ring.count
        ends = count.cumsum(0)  # [E] the FIFOs laid end to end
        draw = torch.rand(self.batch_size, dtype=torch.float64, device=ring.device, generator=generator)
        place = torch.minimum((draw * ends[-1]).to(torch.int64), ends[-1] - 1)  # [B]
        env = torch.searchsorted(ends, place, right=True)  # [B]
        number = place + (ring.evicted - (ends - count)).take(env)  # of the start in its environment's FIFO
        start = ring.starts.take((number % ring.rows) * ring.num_envs + env)
        return start % ring.rows, env, torch.ones(self.batch_size, device=ring.device)

    def state(self) -> dict[str, Tensor]:
        return {}

    def load(self, state: dict[str, Tensor]) -> None:
        pass


class Newest:
    """The newest start of every environment, each used once (B = E; weight 0 where nothing new was decided).

    Learning without a memory, as a Q-table does: Watkins (1989).
    """

    def __init__(self, num_envs: int):
        self.used = torch.zeros(num_envs, dtype=torch.int64)

    def sample(self, ring: Ring, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        used = self.used.to(ring.device)
        weight = (ring.added > used).to(torch.get_default_dtype())
        start = ring.starts[(ring.added - 1).clamp_min(0) % ring.rows, ring.env]
        self.used = ring.added
        return start % ring.rows, ring.env, weight

    def state(self) -> dict[str, Tensor]:
        return {"used": self.used}

    def load(self, state: dict[str, Tensor]) -> None:
        self.used = state["used"]
