"""The meter: what a run adds up between two lines of the log."""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dqn.resources import resident_memory
from dqn.tracking.episode_info import EpisodeInfo
from dqn.tracking.episodes import Episodes
from dqn.tracking.logger import STAGES, trim_memory
from dqn.types import Rows


class Meter:
    """Seconds by stage, episodes that have ended, the values of their infos that `episode_info` names, the largest
    |reward|, and the sum of the learner's statistics `names`, kept on their device."""

    def __init__(
        self,
        names: Sequence[str],
        device: torch.device,
        num_envs: int,
        largest_reward: float,
        episode_info: Sequence[str] = (),
    ):
        self.names, self.largest_reward = names, largest_reward
        self.episodes, self.episode_info = Episodes(num_envs), EpisodeInfo(episode_info)
        self.seconds: dict[str, float] = dict.fromkeys(STAGES, 0.0)
        self.recent: deque[float] = deque(maxlen=100)  # returns of the last episodes, for the progress line
        self.finished: list[tuple[float, int]] = []  # (return, length) since the last reading
        self._longest = 0
        self.sums, self.updates = torch.zeros(len(names), device=device), 0
        self.since = (perf_counter(), 0, 0, dict(self.seconds))
        self.started, self.before = perf_counter(), 0.0  # seconds of the run's earlier processes

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        start = perf_counter()
        yield
        self.seconds[stage] += perf_counter() - start

    @property
    def elapsed(self) -> float:
        """Seconds of all the run's processes."""
        return self.before + perf_counter() - self.started

    def spent(self) -> dict[str, Any]:
        """What a checkpoint keeps: the seconds by stage, all of them, the largest |reward|, and what is known of the
        episodes."""
        longest = self.longest()
        return {
            "seconds": self.seconds,
            "spent": self.elapsed,
            "largest_reward": self.largest_reward,
            "recent": list(self.recent),
            "longest": longest,
        }

    def longest(self) -> int:
        """Decisions in the longest episode so far, the running ones included."""
        self._note(self.episodes.read())
        return max(self._longest, int(self.episodes.lengths.max(initial=0)))

    def go_on(self, counters: dict[str, Any]) -> None:
        """Count on from a checkpoint."""
        self.seconds.update(counters["seconds"])
        self.before = counters["spent"]
        self.largest_reward = counters["largest_reward"]
        self.recent.extend(counters["recent"])
        self._longest = counters["longest"]

    def note_rows(self, rows: Rows) -> None:
        """A block of what happened; where it lies on a device it waits there."""
        self._note(self.episodes.extend(rows))
        self.episode_info.note(rows)

    def begin_episodes(self) -> None:
        """The environments were reset from outside."""
        self._note(self.episodes.read())
        self.episodes.begin()

    def _note(self, found: tuple[list[tuple[float, int]], float]) -> None:
        finished, largest = found
        self.finished += finished
        self.recent.extend(score for score, _ in finished)
        self._longest = max([self._longest, *(length for _, length in finished)])
        self.largest_reward = max(self.largest_reward, largest)

    def last_returns(self) -> Sequence[float]:
        """Of the last 100 episodes; of those that wait on a device, none."""
        if not self.episodes.on_device:
            self._note(self.episodes.read())
        return self.recent

    def note_update(self, stats: Tensor) -> None:
        self.sums += stats
        self.updates += 1

    def begin(self, env_steps: int, updates: int) -> None:
        """Start the interval of the next reading here."""
        self.since = (perf_counter(), env_steps, updates, dict(self.seconds))

    def read(self, env_steps: int, updates: int) -> dict[str, float]:
        """The numbers since the last reading, by tag; reading begins a new interval. The only read of a device."""
        self._note(self.episodes.read())
        then, steps_then, updates_then, seconds = self.since
        elapsed = max(perf_counter() - then, 1e-9)
        numbers = {
            "speed/env_steps_per_s": (env_steps - steps_then) / elapsed,
            "speed/updates_per_s": (updates - updates_then) / elapsed,
            "process/memory_gb": resident_memory() / 2**30,
            **{f"time/{stage}": (self.seconds[stage] - seconds[stage]) / elapsed for stage in STAGES},
        }
        if self.finished:
            numbers["episode/return"], numbers["episode/length"] = map(float, np.mean(self.finished, axis=0))
        numbers |= self.episode_info.read()
        if self.updates:
            means = (self.sums / self.updates).tolist()
            numbers |= {f"learner/{name}": mean for name, mean in zip(self.names, means, strict=True)}
        self.finished, self.updates = [], 0
        self.sums.zero_()
        trim_memory()
        self.begin(env_steps, updates)
        return numbers
