"""Raw returns and lengths of the episodes in a stream of rows, whatever the autoreset mode."""

import numpy as np
import torch

from dqn.types import Rows


class Episodes:
    """Adds up rewards and decisions of each environment; reset rows count for nothing."""

    def __init__(self, num_envs: int):
        self.num_envs = num_envs
        self.begin()

    def begin(self) -> None:
        """Forget the running episodes: the environments were reset from outside."""
        self.returns = np.zeros(self.num_envs)
        self.lengths = np.zeros(self.num_envs, np.int64)

    def extend(self, rows: Rows) -> list[tuple[float, int]]:
        """(return, length) of every episode that ends in the block, in the order in which they end."""
        fields = (rows.reward, rows.terminated, rows.truncated, rows.reset)
        rewards, terminated, truncated, reset = (x.numpy(force=True) if torch.is_tensor(x) else x for x in fields)
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
        return finished
