"""Prioritised replay: what surprised is drawn more often, and weighted down for it."""

from collections.abc import Callable
from math import inf

import torch
from torch import Tensor

from dqn.replay.priorities import SumTree
from dqn.replay.ring import Ring
from dqn.replay.samplers import Sampler


class Prioritized(Sampler):
    """Starts in proportion to their last temporal-difference errors, with importance weights,

    P(i) = p_i^priority_exponent / Σ_k p_k^priority_exponent, w_i = (N P(i))^−importance_exponent / max_batch w,
    p = max_mix · max_t |δ_t| + (1 − max_mix) · mean_t |δ_t| + floor over the valid steps t of the sequence.

    The draws are stratified: one from each of B equal parts of the mass. A new start gets the largest priority so far,
    1 at first. `importance_exponent` is a schedule, env_steps → exponent. Within an update nothing waits for the
    device: `ready` and `at` bring the tree up to what the ring holds, so one of them is called whenever rows were
    written, before the next draw. Between a draw and its report no rows are written, so no report can meet a start
    that is gone. Schaul et al. (2016), §3.3-3.4; sequences: Kapturowski et al. (2019), §2.3.

    Errors: ValueError for numbers out of their ranges.
    """

    reports = True

    def __init__(
        self, batch_size: int, priority_exponent: float, importance_exponent: Callable[[int], float],
        max_mix: float = 0.9, floor: float = 1e-6,
    ):  # fmt: skip
        if batch_size < 1:
            raise ValueError(f"batch_size must be ≥ 1, got {batch_size}")
        if priority_exponent < 0:
            raise ValueError(f"priority_exponent must be ≥ 0, got {priority_exponent}")
        if not callable(importance_exponent):
            raise ValueError(f"importance_exponent must be a schedule over env_steps, got {importance_exponent!r}")
        if min(importance_exponent(0), importance_exponent(10**15)) < 0:
            raise ValueError("replay.sampler.importance_exponent must stay ≥ 0: set both its start and end so")
        if not 0 <= max_mix <= 1:
            raise ValueError(f"max_mix must be in [0, 1], got {max_mix}")
        if floor <= 0:
            raise ValueError(f"floor must be > 0, or what is learnt perfectly is never drawn again; got {floor}")
        self.batch_size, self.priority_exponent, self.schedule = batch_size, priority_exponent, importance_exponent
        self.max_mix, self.floor = max_mix, floor

    def attach(self, ring: Ring) -> None:
        self.ring, device = ring, ring.device
        self.tree = SumTree(ring.rows * ring.num_envs, device)  # leaf = slot · E + env
        self.largest = torch.ones((), dtype=torch.float64, device=device)  # p^priority_exponent, of all so far
        self.exponent = torch.full((), self.schedule(0), dtype=torch.float64, device=device)
        self.added = torch.zeros_like(ring.added)  # starts already in the tree, as the ring counts them
        self.oldest = torch.zeros_like(ring.added)  # row number of the oldest start in the tree
        self.strata = torch.arange(self.batch_size, dtype=torch.float64, device=device)
        self.evicted = torch.zeros_like(ring.added)  # starts that are out of the tree, as the ring counts them
        self.followed = -inf  # ring.moved when it was brought up to it
        tracked = ("added", "oldest", "evicted", "largest")
        self.tracked = ring.seen({name: getattr(self, name) for name in tracked})

    def ready(self, ring: Ring) -> bool:
        self._follow(ring)
        return super().ready(ring)

    def anneal(self, env_steps: int) -> None:
        self._follow(self.ring)
        self.exponent.fill_(self.schedule(env_steps))

    def _follow(self, ring: Ring) -> None:
        """Give the starts since the last call the largest priority, and what was evicted since none."""
        xp, here, tracked = ring.xp, ring.here, self.tracked
        starts, added, evicted, env = here["starts"], here["added"], here["evicted"], here["env"]
        first = xp.maximum(tracked["added"], evicted)  # the rest came and went unseen
        last, oldest = starts[(added - 1) % ring.rows, env], starts[evicted % ring.rows, env]
        oldest = xp.where(added > evicted, oldest, xp.where(added > 0, last + 1, 0))
        gone = xp.maximum(tracked["oldest"], oldest - ring.rows)  # further back lie the same slots again
        since, self.followed = ring.moved - self.followed, ring.moved
        if xp is torch and since <= ring.rows - ring.kept:  # what was evicted since is still in the FIFO
            self._follow_unasked(ring, first, int(since))
        else:
            news, olds = xp.stack([(added - first).max(), (oldest - gone).max()]).tolist()
            if not news and not olds:
                return
            row = gone + ring.counted(olds)  # [M, E]
            self.tree.set((row % ring.rows * ring.num_envs + env)[row < oldest], 0.0)
            number = first + ring.counted(news)  # [M, E] in the FIFO; a newer start may lie where one is gone
            new = (starts[number % ring.rows, env] % ring.rows * ring.num_envs + env)[number < added]
            self.tree.set(new, tracked["largest"])
        for name, reached in (("added", added), ("oldest", oldest), ("evicted", evicted)):
            tracked[name][:] = reached

    def _follow_unasked(self, ring: Ring, first: Tensor, most: int) -> None:
        """The same after at most `most` rows without asking a device how many starts came and went: for those that
        did not, zeros are written to the slot of what is seen now, where no start can be."""
        starts, added, env = ring.starts, ring.added, ring.env

        def leaf(number: Tensor, there: Tensor) -> Tensor:
            slot = torch.where(there, starts[number % ring.rows, env], ring.written) % ring.rows
            return (slot * ring.num_envs + env).flatten()

        old, new = self.evicted + ring.counted(most), first + ring.counted(most)
        self.tree.set(leaf(old, old < ring.evicted), torch.zeros_like(old, dtype=torch.float64).flatten())
        self.tree.set(leaf(new, new < added), torch.where(new < added, self.largest, 0.0).flatten())

    def sample(self, ring: Ring, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        draw = torch.rand(self.batch_size, dtype=torch.float64, device=ring.device, generator=generator)
        leaf = self.tree.find((self.strata + draw) / self.batch_size * self.tree.total)
        value = self.tree.values(leaf)
        weight = (value.amin() / value) ** self.exponent  # N and the sum of all priorities drop out of w / max w
        return leaf // ring.num_envs, leaf % ring.num_envs, weight.to(torch.get_default_dtype())

    def report(self, slot: Tensor, env: Tensor, td_error: Tensor, valid: Tensor) -> None:
        if td_error.ndim != 2 or td_error.shape != valid.shape or td_error.shape[1:] != slot.shape:
            raise ValueError(f"td_error and valid must be [T, B], got {td_error.shape}, {valid.shape} for {slot.shape}")
        error = torch.where(valid, td_error.detach().abs(), 0.0).to(torch.float64)
        mean = error.sum(0) / valid.sum(0).clamp_min(1)
        priority = mean + self.max_mix * (error.amax(0) - mean) + self.floor
        value = priority**self.priority_exponent
        self.tree.set(slot * self.ring.num_envs + env, value)
        self.largest.copy_(torch.maximum(self.largest, value.amax()))

    def state(self) -> dict[str, Tensor]:
        return {"priorities": self.tree.state(), **self._numbers()}

    def load(self, state: dict[str, Tensor]) -> None:
        """What `state` gave; the ring is loaded too."""
        self.tree.load(state["priorities"])
        for name, tensor in self._numbers().items():
            tensor.copy_(state[name])
        self.followed = -inf

    def _numbers(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in ("largest", "exponent", "added", "oldest", "evicted")}
