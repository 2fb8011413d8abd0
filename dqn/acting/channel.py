"""A channel between two processes on one machine, for short messages that must arrive soon."""

import pickle
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Semaphore
from struct import Struct
from typing import Any

import torch
from torch import Tensor

SPINS = 4000  # about 1 ms: waking a process takes 100 µs and more, so it asks again and again before it sleeps
SLEEP = 1.0  # seconds until a sleeping process asks whether the other still lives
NUMBERS = Struct("<q3q2d")  # whether a thing comes, instead of: three whole numbers and two others
Numbers = tuple[int, int, int, float, float]


class Channel:
    """One end. Numbers go through shared memory; anything else is pickled and goes through a pipe after them.

    It is pickled by value: the pipe's own pickling would move tensors into shared memory, away from the arrays that are
    views of them. Each end sends and receives in turn. Errors: EOFError where the other process has died.
    """

    def __init__(self, out: Tensor, into: Tensor, sent: Semaphore, arrived: Semaphore, pipe: Connection):
        self.made_of = out, into, sent, arrived, pipe
        self.out, self.into = memoryview(out.numpy()), memoryview(into.numpy())  # pyright: ignore[reportArgumentType]  # arrays are buffers
        self.sent, self.arrived, self.pipe = sent, arrived, pipe

    def __reduce__(self) -> Any:
        return Channel, self.made_of

    def send(self, a: int = 0, b: int = 0, c: int = 0, x: float = 0.0, y: float = 0.0) -> None:
        """Numbers."""
        NUMBERS.pack_into(self.out, 0, 0, a, b, c, x, y)
        self.sent.release()

    def send_object(self, thing: Any) -> None:
        """Anything that can be pickled."""
        NUMBERS.pack_into(self.out, 0, 1, 0, 0, 0, 0.0, 0.0)
        self.sent.release()
        self.pipe.send_bytes(pickle.dumps(thing))

    def receive(self, alive: Callable[[], bool]) -> tuple[Numbers | None, Any]:
        """The numbers, or None and the thing."""
        for _ in range(SPINS):
            if self.arrived.acquire(False):
                break
        else:
            while not self.arrived.acquire(True, SLEEP):
                if not alive():
                    raise EOFError
        thing, *numbers = NUMBERS.unpack_from(self.into)
        return (None, pickle.loads(self.pipe.recv_bytes())) if thing else (tuple(numbers), None)


def make_channel(context: Any) -> tuple[Channel, Channel]:
    """Both ends of a new channel; the second is for a process that `context` starts."""
    there, back = (torch.zeros(NUMBERS.size, dtype=torch.uint8).share_memory_() for _ in range(2))
    asked, answered, (mine, theirs) = context.Semaphore(0), context.Semaphore(0), context.Pipe()
    return Channel(there, back, asked, answered, mine), Channel(back, there, answered, asked, theirs)
