"""Samplers: which experience, how weighted.

A sampler draws starts from the ring's FIFO: (slot [B], env [B], weight [B] or [T, B]). Before the draws the trainer
asks `ready(ring)` and says `anneal(env_steps)`; after an update it says `report(slot, env, td_error, valid)`.
"""

import torch
from torch import Tensor

from dqn.replay.ring import Ring


class Sampler:
    """What every sampler answers; most of it needs nothing done. What changes lies in tensors, changed in place."""

    newest = False  # draws each start once, from all environments at a time, as it becomes legal
    reports = False  # needs to be told the errors

    def attach(self, ring: Ring) -> None:
        """The ring to draw from, once, before anything else."""

    def ready(self, ring: Ring) -> bool:
        """Whether a draw is possible now; asks the device, so not within an update."""
        return len(ring) > 0

    def anneal(self, env_steps: int) -> None:
        """Before the updates at this time: whatever follows a schedule or the growth of the ring."""

    def sample(self, ring: Ring, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        raise NotImplementedError

    def report(self, slot: Tensor, env: Tensor, td_error: Tensor, valid: Tensor) -> None:
        """After an update from the starts `slot`, `env` [B]: `td_error` [T, B], where `valid` [T, B]."""

    def state(self) -> dict[str, Tensor]:
        return {}

    def load(self, state: dict[str, Tensor]) -> None:
        pass


class Uniform(Sampler):
    """Every legal start equally likely, with replacement, weight 1. Lin (1992); Mnih et al. (2015).

    `batch_size` B > 0; an empty ring cannot be sampled (ask `ready` first).
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


class Newest(Sampler):
    """The newest start of every environment (B = E), `length` rows from it; weight 0 where a row was used before.

    Learning without a memory: from every transition as it happens, as a Q-table does (Watkins, 1989), or from every
    rollout of `length` rows (Gallici et al., 2024). weight [E] for length 1, else [length, E]. A start at row r covers
    the rows r … r + length − 1, which the ring's window must hold; `used` [E] counts the rows that are used up.

    Errors: ValueError when `length` is not positive.
    """

    newest = True

    def __init__(self, num_envs: int, length: int = 1):
        if length < 1:
            raise ValueError(f"length must be ≥ 1, got {length}")
        self.length = length
        self.used = torch.zeros(num_envs, dtype=torch.int64)
        self.offsets = torch.arange(length)[:, None]  # [T, 1]

    def attach(self, ring: Ring) -> None:
        self.used, self.offsets = self.used.to(ring.device), self.offsets.to(ring.device)

    def ready(self, ring: Ring) -> bool:
        return bool((ring.count > 0).all())

    def sample(self, ring: Ring, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        start = ring.starts[(ring.added - 1).clamp_min(0) % ring.rows, ring.env]
        legal = ring.added > 0
        weight = ((start + self.offsets >= self.used) & legal).to(torch.get_default_dtype())  # [T, E]
        self.used.copy_(torch.where(legal, torch.maximum(self.used, start + self.length), self.used))
        return start % ring.rows, ring.env, weight if self.length > 1 else weight[0]

    def state(self) -> dict[str, Tensor]:
        return {"used": self.used}

    def load(self, state: dict[str, Tensor]) -> None:
        self.used.copy_(state["used"])
