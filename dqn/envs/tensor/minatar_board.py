"""What the five games of MinAtar share: the board of 10 × 10 cells, actions that stick, and a step in two parts.

A game is tensors over E environments. No number is asked of the device and no shape hangs on what happens, so that a
step can be traced, compiled or captured. The rules are those of Young & Tian (2019), "MinAtar: An Atari-Inspired
Testbed for Thorough and Reproducible Reinforcement Learning Experiments", step for step those of minatar 1.0.15.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from dqn.errors import UsageError
from dqn.types import Spec

State = dict[str, Tensor]  # every entry [E, ...]
Outcome = tuple[State, Tensor, Tensor]  # the state after a step, reward [E], terminated [E]
SIZE = 10  # cells on a side
CELLS = SIZE * SIZE


class Game(ABC):
    """A MinAtar game of pure functions: reset = begin ∘ draw and step = advance ∘ draw.

    `draw` makes the random numbers of a step, whether or not they are needed; what follows is certain given them.
    Observations are [E, 10, 10, C] bool. Actions [E] int64 are numbers within the game's minimal action set, whose 0
    does nothing; with probability `sticky` the action before is taken again (before the first: 0). `ramping`: the game
    gets harder where it can. Errors: UsageError for a `sticky` that is no probability. Young & Tian (2019).
    """

    spec: Spec
    limit: int = 0
    chances: tuple[str, ...] = ("sticky",)

    def __init__(self, sticky: float = 0.1, ramping: bool = True):
        if not 0 <= sticky <= 1:
            raise UsageError(f"MinAtar needs 0 ≤ sticky ≤ 1, got sticky={sticky}.")
        self.sticky, self.ramping = sticky, ramping

    def draw(self, num_envs: int, generator: torch.Generator, device: torch.device | str) -> State:
        """All that chance decides in one step: numbers ~ U[0, 1), [E] each, one for every name in `chances`."""
        numbers = torch.rand(len(self.chances), num_envs, generator=generator, device=device)
        return dict(zip(self.chances, numbers.unbind(), strict=True))

    @abstractmethod
    def begin(self, draws: State) -> State:
        """The state in which an episode begins."""

    @abstractmethod
    def advance(self, state: State, action: Tensor, draws: State) -> Outcome:
        """What the action [E] makes of the state, given what chance decides."""

    @abstractmethod
    def observe(self, state: State) -> Tensor:
        """What the agent sees, [E, 10, 10, C] bool."""

    def reset(self, num_envs: int, generator: torch.Generator, device: torch.device | str) -> State:
        """E states in which episodes begin."""
        return self.begin(self.draw(num_envs, generator, device))

    def step(self, state: State, action: Tensor, generator: torch.Generator) -> Outcome:
        """The state after the action [E], the reward [E] and whether the episode ended [E] bool."""
        return self.advance(state, action, self.draw(len(action), generator, action.device))

    def taken(self, state: State, action: Tensor, draws: State) -> Tensor:
        """The action [E] that is taken: the one before with probability `sticky`, else the one that was chosen."""
        return torch.where(draws["sticky"] < self.sticky, state["last_action"], action)


def whole(like: Tensor, value: int = 0) -> Tensor:
    """`value` in every environment, int64 in the shape of `like`: a tensor of its own for each entry of a state."""
    return torch.full_like(like, value, dtype=torch.int64)


def moved(place: Tensor, action: Tensor, back: int, forth: int, low: int = 0, high: int = SIZE - 1) -> Tensor:
    """place - [action = back] + [action = forth], held within low … high; written so because bool has no minus."""
    return (place + (action == forth) + (action != back) - 1).clamp(low, high)


def cell(x: Tensor, y: Tensor) -> Tensor:
    """The number of a cell, 10 y + x."""
    return torch.add(x, y, alpha=SIZE)


def inside(x: Tensor) -> Tensor:
    """Whether the column is on the board."""
    return (x >= 0) & (x < SIZE)


def picture(points: Tensor, channels: int) -> Tensor:
    """[E, 10, 10, C] bool, true at the points [E, N], which are numbers (10 y + x) C + channel.

    N is fixed, so what is not there must be given a point that is lit anyway. Filled as bytes: compiled for a CPU, a
    fill with bool is ten times as slow.
    """
    dark = points.new_zeros(len(points), CELLS * channels, dtype=torch.uint8)
    return dark.scatter_(1, points, 1).view(torch.bool).view(-1, SIZE, SIZE, channels)
