"""Two grids of the behaviour suite: Catch, where credit is due late, and DeepSea, where the reward must be sought."""

import numpy as np
import torch
from torch import Tensor

from dqn.envs.tensor.tables import Tables
from dqn.types import Spec


class Catch:
    """A ball falls a row a step from a random column; the paddle in the last row moves left (0), not (1) or right (2).

    Observation [E, rows, columns]: 1 at the ball and at the paddle, else 0. The paddle begins in the middle; the
    episode ends as the ball comes to the last row, with reward 1 if the paddle is there, else −1; all other rewards
    are 0. Errors: ValueError for fewer than 2 rows or 1 column. Osband et al. (2020), "Behaviour suite", catch.
    """

    limit = 0

    def __init__(self, rows: int = 10, columns: int = 5):
        if rows < 2 or columns < 1:
            raise ValueError(f"Catch needs rows ≥ 2 and columns ≥ 1, got rows={rows}, columns={columns}")
        self.rows, self.columns, self.dtype = rows, columns, torch.get_default_dtype()
        self.spec = Spec((rows, columns), torch.empty(0, dtype=self.dtype).numpy().dtype, 3)

    def reset(self, num_envs: int, generator: torch.Generator, device: torch.device) -> dict[str, Tensor]:
        """Ball (its column) uniform, in `row` 0; all entries [E] int64."""
        ball = torch.randint(self.columns, (num_envs,), generator=generator, device=device)
        paddle = torch.full_like(ball, self.columns // 2)
        return {"ball": ball, "row": torch.zeros_like(ball), "paddle": paddle}

    def step(
        self, state: dict[str, Tensor], action: Tensor, generator: torch.Generator
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """The paddle moves, the ball falls."""
        ball, paddle = state["ball"], (state["paddle"] + action - 1).clamp(0, self.columns - 1)
        row = (state["row"] + 1).clamp_max(self.rows - 1)
        last = row == self.rows - 1
        reward = last * (2 * (paddle == ball) - 1)
        return {"ball": ball, "row": row, "paddle": paddle}, reward.to(self.dtype), last

    def observe(self, state: dict[str, Tensor]) -> Tensor:
        """The board [E, rows, columns]."""
        ball = _one_hot(state["row"] * self.columns + state["ball"], self.spec)
        return (ball | _one_hot((self.rows - 1) * self.columns + state["paddle"], self.spec)).to(self.dtype)

    def optimal_return(self) -> float:
        """Mean return of the best policy: 1, less where a wide board has columns out of reach in rows − 1 steps."""
        middle = self.columns // 2
        return sum(1 if abs(ball - middle) < self.rows else -1 for ball in range(self.columns)) / self.columns


class DeepSea:
    """A diver sinks a row a step from the top left corner of N × N cells, a column to the left or to the right.

    Observation [E, N, N]: 1 at the diver, else 0; nothing is seen after the last row, where the episode ends. Going
    right costs 0.01/N; going right in the last column gives 1, which takes right N times out of N. Which of the two
    actions is right is drawn for each cell with `mapping_seed`, by NumPy's legacy generator, as the suite does.
    Errors: ValueError for a size below 2. Osband et al. (2020), "Behaviour suite", deep_sea; Osband et al. (2019).
    """

    limit = 0
    COST = 0.01

    def __init__(self, size: int = 10, mapping_seed: int = 0):
        if size < 2:
            raise ValueError(f"DeepSea needs size ≥ 2, got size={size}")
        self.size, self.dtype = size, torch.get_default_dtype()
        right = np.random.RandomState(mapping_seed).binomial(1, 0.5, (size, size))
        self.tables = Tables(right=torch.from_numpy(right.reshape(-1)).long())  # [N · N] the action that goes right
        self.spec = Spec((size, size), torch.empty(0, dtype=self.dtype).numpy().dtype, 2)

    def reset(self, num_envs: int, generator: torch.Generator, device: torch.device) -> dict[str, Tensor]:
        """In the top left corner; all entries [E] int64."""
        row = torch.zeros(num_envs, dtype=torch.int64, device=device)
        self.tables.on(row.device)
        return {"row": row, "column": torch.zeros_like(row)}

    def step(
        self, state: dict[str, Tensor], action: Tensor, generator: torch.Generator
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """A row down, a column to the side, between walls."""
        row, column, edge = state["row"], state["column"], self.size - 1
        cell = row.clamp_max(edge) * self.size + column
        right = action == self.tables.on(row.device)["right"][cell]
        reward = ((column == edge) & right).to(self.dtype) - right * (self.COST / self.size)
        side = (column + 2 * right - 1).clamp(0, edge)
        down = (row + 1).clamp_max(self.size)
        return {"row": down, "column": side}, reward, down == self.size

    def observe(self, state: dict[str, Tensor]) -> Tensor:
        """The grid [E, N, N]."""
        return _one_hot(state["row"] * self.size + state["column"], self.spec).to(self.dtype)

    def optimal_return(self) -> float:
        """Return of going right N times: 1 − 0.01."""
        return 1 - self.COST


def _one_hot(cell: Tensor, spec: Spec) -> Tensor:
    """True at one cell, counted row by row, of each grid, and nowhere after the last: [E] int64 → [E, *obs_shape]."""
    rows, columns = spec.obs_shape
    return (torch.arange(rows * columns, device=cell.device) == cell.unsqueeze(-1)).unflatten(-1, (rows, columns))
