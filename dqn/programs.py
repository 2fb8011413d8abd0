"""How the steps of a run are run: as they are written, or as programs that an engine makes of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

Prepare = Callable[..., Callable]  # takes a step, and the optimizer that it uses where it uses one; gives such a step


def as_written(step: Callable, optimizer: Any = None) -> Callable:
    """The step itself."""
    return step


@dataclass(frozen=True)
class Programs:
    """What makes a program of each step of a run. It is handed to the constructors of what owns the steps.

    `act`: the policy, observations to actions. `write`: a block of rows into the replay memory. `update`: sampling,
    learning and reporting, or one gradient step of several from one batch. `tick`: acting and stepping in a tensor
    world.
    """

    act: Prepare = as_written
    write: Prepare = as_written
    update: Prepare = as_written
    tick: Prepare = as_written


class Plain:
    """No engine: every step runs as it is written. `execution=plain`; an engine has the same interface."""

    chosen: str | None = None

    def __init__(self, device: torch.device, calls: int):
        self.why = "none (every step runs as it is written)"

    def choose(self, chosen: str | None) -> None:
        """Nothing: there is no choice that a resume would have to keep."""

    def capture(self, step: Callable, optimizer: Any = None, small: bool = False) -> Callable:
        return step
