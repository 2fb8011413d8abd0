"""A line between two processes on one machine, for short words that must arrive soon."""

from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Semaphore
from typing import Any

import torch
from torch import Tensor

LOOKS = 4000  # about 1 ms: to be woken takes 100 µs and more, so a process looks a while for itself before it sleeps
SLEEP = 1.0  # seconds until a sleeping process asks whether the other still lives
NUMBERS = 5


class Line:
    """One end: numbers go through shared memory, and anything else, pickled, through a pipe behind them.

    Each end sends and receives in turn. Errors: EOFError where the other process has died.
    """

    def __init__(self, out: Tensor, into: Tensor, ring: Semaphore, rung: Semaphore, pipe: Connection):
        self.out, self.into, self.ring, self.rung, self.pipe = out, into, ring, rung, pipe

    def send(self, *numbers: float) -> None:
        """At most NUMBERS of them."""
        self.out.numpy()[: len(numbers) + 1] = (0.0, *numbers)
        self.ring.release()

    def hand(self, thing: Any) -> None:
        """Anything that can be pickled."""
        self.out.numpy()[0] = 1.0
        self.ring.release()
        self.pipe.send(thing)

    def receive(self, alive: Callable[[], bool]) -> tuple[list[float] | None, Any]:
        """The numbers [NUMBERS], or None and the thing."""
        for _ in range(LOOKS):
            if self.rung.acquire(False):
                break
        else:
            while not self.rung.acquire(True, SLEEP):
                if not alive():
                    raise EOFError
        thing, *numbers = self.into.tolist()
        return (None, self.pipe.recv()) if thing else (numbers, None)


def line(context: Any) -> tuple[Line, Line]:
    """Both ends of a new line; the second is for a process that `context` starts."""
    there, back = (torch.zeros(1 + NUMBERS, dtype=torch.float64).share_memory_() for _ in range(2))
    ask, answer, (mine, theirs) = context.Semaphore(0), context.Semaphore(0), context.Pipe()
    return Line(there, back, ask, answer, mine), Line(back, there, answer, ask, theirs)
