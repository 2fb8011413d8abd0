"""Raw returns and lengths of the episodes in a stream of rows, whatever the autoreset mode."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dqn.types import Rows

FIELDS = ("reward", "terminated", "truncated", "reset")
FEW = 1 << 8  # decisions that wait on the host, as many small blocks take as long to count as a large one
MOST = 1 << 22  # those that wait on a device, 16 bytes each


class Episodes:
    """Adds up rewards and decisions of each environment; reset rows count for nothing.

    Both verbs give (return, length) of every episode that was found to have ended, in the order in which they ended,
    and the largest |reward|. Nothing is asked of a device for that: its rows wait there until they are read, and so,
    for a while, do rows that are few.
    """

    def __init__(self, num_envs: int):
        self.num_envs = num_envs
        self.waiting: list[Any] = []  # of each block [4, K, E] on a device, or four arrays [K, E]
        self.held = 0  # decisions in them
        self.on_device = False
        self.begin()

    def begin(self) -> None:
        """Forget the running episodes: the environments were reset from outside."""
        self.returns = np.zeros(self.num_envs)
        self.lengths = np.zeros(self.num_envs, np.int64)

    def extend(self, rows: Rows) -> tuple[list[tuple[float, int]], float]:
        """Count a block of rows."""
        fields = [getattr(rows, name) for name in FIELDS]
        on_host = not torch.is_tensor(rows.reward) or rows.reward.device.type == "cpu"
        self.on_device = not on_host
        if on_host:
            self.waiting.append([np.asarray(x).copy() for x in fields])  # the stage is filled anew
        else:
            self.waiting.append(torch.stack([x.to(rows.reward.dtype) for x in fields]))
        self.held += len(rows.reward) * self.num_envs
        return self.read() if self.held > (FEW if on_host else MOST) else ([], 0.0)

    def read(self) -> tuple[list[tuple[float, int]], float]:
        """Count what waits."""
        if not self.waiting:
            return [], 0.0
        blocks, self.waiting, self.held = self.waiting, [], 0
        if torch.is_tensor(blocks[0]):
            rewards, *flags = torch.cat(blocks, 1).numpy(force=True)
        else:
            rewards, *flags = map(np.concatenate, zip(*blocks, strict=True))
        return self._count(rewards, *(x.astype(bool) for x in flags))

    def _count(self, rewards: np.ndarray, terminated: np.ndarray, truncated: np.ndarray, reset: np.ndarray):
        done, decided = terminated | truncated, ~reset
        finished, begin = [], 0
        for t, e in zip(*done.nonzero(), strict=True):
            if t >= begin:
                self.returns += rewards[begin : t + 1].sum(0, dtype=np.float64)
                self.lengths += decided[begin : t + 1].sum(0)
                begin = t + 1
            finished.append((float(self.returns[e]), int(self.lengths[e])))
            self.returns[e], self.lengths[e] = 0.0, 0
        self.returns += rewards[begin:].sum(0, dtype=np.float64)
        self.lengths += decided[begin:].sum(0)
        return finished, float(abs(rewards).max())

    def state(self) -> dict[str, Tensor]:
        return {"returns": torch.from_numpy(self.returns), "lengths": torch.from_numpy(self.lengths)}

    def load(self, state: dict[str, Tensor]) -> None:
        self.returns, self.lengths = state["returns"].numpy(), state["lengths"].numpy()
