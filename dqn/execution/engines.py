"""Engines: how a step is run. Each is made for a device and the number of calls ahead, and has one verb:

`capture(step, optimizer)` takes a step of tensors, with its in-place effects on others, and gives one that does the
same. One body is valid under all engines because state is written in place, shapes are fixed, numbers that vary are
tensors that the host fills, and random numbers come from generators (results are returned as tensors, in tuples and
dicts; they are to be used, or copied, before the next call, which may write over them). `optimizer` is the one that the
step uses, where it uses one. `small` says that arrays may be so small that torch itself is what takes the time. `why`
says in words what was chosen.
"""

from collections.abc import Callable
from functools import partial
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from dqn.execution.compiled import compiler_missing, record
from dqn.execution.graphs import Graph, give_up
from dqn.execution.small import record_small
from dqn.types import UsageError

_shape = attrgetter("shape")
PAYS = 20_000  # updates after which compiling (5 to 30 s) has paid for itself on a CPU: it spares about 1 ms each


class Eager:
    """Run as written, but for small steps where `numpy` allows them to go there."""

    def __init__(self, device: torch.device, calls: int, why: str = "asked for", numpy: bool = False):
        self.numpy, self.why = numpy, f"eager ({why})"

    def capture(self, step: Callable, optimizer: Any = None, small: bool = False) -> Callable:
        return Lazy(step, partial(record_small, step), quiet=True) if small and self.numpy else step


class Compiled:
    """The whole step recorded as one graph of tensor operations before its first call, fused by torch.compile; on a
    GPU its kernels are then captured too."""

    def __init__(self, device: torch.device, calls: int, why: str = "asked for"):
        self.device, self.why = device, f"compile ({why})"

    def capture(self, step: Callable, optimizer: Any = None, small: bool = False) -> Callable:
        if self.device.type == "cpu" and small:
            return Lazy(step, partial(_small_or_compiled, step), quiet=True)
        if self.device.type == "cpu":
            return Lazy(step, lambda *args: record(step, optimizer, *args))
        return Lazy(step, lambda *args: Graph(record(step, optimizer, *args), None, self.device))


class CUDAGraph:
    """The whole step captured as a CUDA graph: one launch instead of a hundred. On another device it runs eagerly."""

    def __init__(self, device: torch.device, calls: int, why: str = "asked for"):
        self.device = device
        self.why = f"cudagraph ({why})" if device.type == "cuda" else f"eager (cudagraph needs a GPU, not {device})"

    def capture(self, step: Callable, optimizer: Any = None, small: bool = False) -> Callable:
        return Lazy(step, lambda *args: Graph(step, optimizer, self.device)) if self.device.type == "cuda" else step


class Lazy:
    """A step that is prepared at its first call with arguments of some shapes; where that fails it runs as written, and
    the log says why, unless it is `quiet`."""

    def __init__(self, step: Callable, prepare: Callable[..., Callable], quiet: bool = False):
        self.step, self.prepare, self.quiet = step, prepare, quiet
        self.ready: dict[tuple[torch.Size, ...], Callable] = {}

    def __call__(self, *args: Tensor) -> Any:
        shapes = tuple(map(_shape, args))
        ready = self.ready.get(shapes)
        if ready is not None:
            return ready(*args)
        try:
            ready = self.prepare(*args)
            result = ready(*args)
            self.ready[shapes] = ready
            return result
        except UsageError:
            raise
        except Exception as error:  # whatever a compiler may raise: nothing has been changed yet
            if not self.quiet:
                give_up(error)
            self.ready[shapes] = self.step
        return self.step(*args)


def _small_or_compiled(step: Callable, *args: Any) -> Callable:
    """A small step in NumPy, or, where that is not enough (convolutions, cores), compiled for tensors or arrays."""
    try:
        return record_small(step, *args)
    except ValueError:
        run = record(step, None, *map(torch.as_tensor, args))
        return lambda *args: run(*map(torch.as_tensor, args))


def auto(device: torch.device, calls: int) -> Eager | Compiled | CUDAGraph:
    """A CUDA graph on a GPU; on a CPU compiled where there is a C++ compiler and enough to do, else as written."""
    if device.type == "cuda":
        return CUDAGraph(device, calls, "auto: a GPU")
    missing = compiler_missing()
    if missing or calls < PAYS:
        return Eager(device, calls, f"auto: {missing or f'{calls:,} updates, compiling pays from {PAYS:,}'}", True)
    return Compiled(device, calls, f"auto: {calls:,} updates")
