"""A line between two processes on one machine, for short words that must arrive soon."""

import pickle
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Semaphore
from struct import Struct
from typing import Any

import torch
from torch import Tensor

LOOKS = 4000  # about 1 ms: to be woken takes 100 µs and more, so a process looks a while for itself before it sleeps
SLEEP = 1.0  # seconds until a sleeping process asks whether the other still lives
NUMBERS = Struct("<q3q2d")  # whether a thing comes, instead of: three whole numbers and two others
Numbers = tuple[int, int, int, float, float]


class Line:
    """One end: numbers go through shared memory, and anything else, pickled, through a pipe behind them; by value, as
    the pipe's own pickling would move the tensors that it is handed, away from the arrays that look at their memory.

    Each end sends and receives in turn. Errors: EOFError where the other process has died.
    """

    def __init__(self, out: Tensor, into: Tensor, ring: Semaphore, rung: Semaphore, pipe: Connection):
        self.made_of = out, into, ring, rung, pipe
        self.out, self.into = memoryview(out.numpy()), memoryview(into.numpy())  # pyright: ignore[reportArgumentType]  # arrays are buffers
        self.ring, self.rung, self.pipe = ring, rung, pipe

    def __reduce__(self) -> Any:
        return Line, self.made_of

    def send(self, a: int = 0, b: int = 0, c: int = 0, x: float = 0.0, y: float = 0.0) -> None:
        """Numbers."""
        NUMBERS.pack_into(self.out, 0, 0, a, b, c, x, y)
        self.ring.release()

    def hand(self, thing: Any) -> None:
        """Anything that can be pickled."""
        NUMBERS.pack_into(self.out, 0, 1, 0, 0, 0, 0.0, 0.0)
        self.ring.release()
        self.pipe.send_bytes(pickle.dumps(thing))

    def receive(self, alive: Callable[[], bool]) -> tuple[Numbers | None, Any]:
        """The numbers, or None and the thing."""
        for _ in range(LOOKS):
            if self.rung.acquire(False):
                break
        else:
            while not self.rung.acquire(True, SLEEP):
                if not alive():
                    raise EOFError
        thing, *numbers = NUMBERS.unpack_from(self.into)
        return (None, pickle.loads(self.pipe.recv_bytes())) if thing else (tuple(numbers), None)


def line(context: Any) -> tuple[Line, Line]:
    """Both ends of a new line; the second is for a process that `context` starts."""
    there, back = (torch.zeros(NUMBERS.size, dtype=torch.uint8).share_memory_() for _ in range(2))
    ask, answer, (mine, theirs) = context.Semaphore(0), context.Semaphore(0), context.Pipe()
    return Line(there, back, ask, answer, mine), Line(back, there, answer, ask, theirs)
