"""Engines: how a step is run. Each is made for a device and the number of calls ahead, and has one verb:

`capture(step, optimizer)` takes a step of tensors, with its in-place effects on others, and gives one that does the
same. One body is valid under all engines because state is written in place, shapes are fixed, numbers that vary are
tensors that the host fills, and random numbers come from generators (results are returned as tensors, in tuples and
dicts). `optimizer` is the one that the step uses, where it uses one. `why` says in words what was chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from dqn.execution.compiled import compiler_missing, record
from dqn.execution.graphs import Graph, give_up

F = TypeVar("F", bound=Callable)
PAYS = 20_000  # updates after which compiling (5 to 30 s) has paid for itself on a CPU: it spares about 1 ms each


class Eager:
    """Run as written."""

    def __init__(self, device: torch.device, calls: int, why: str = "asked for"):
        self.why = f"eager ({why})"

    def capture(self, step: F, optimizer: torch.optim.Optimizer | None = None) -> F:
        return step


class Compiled:
    """The whole step recorded as one graph of tensor operations before its first call, fused by torch.compile; on a
    GPU its kernels are then captured too."""

    def __init__(self, device: torch.device, calls: int, why: str = "asked for"):
        self.device, self.why = device, f"compile ({why})"

    def capture(self, step: Callable, optimizer: torch.optim.Optimizer | None = None) -> Callable:
        if self.device.type == "cpu":
            return Lazy(step, lambda *args: record(step, optimizer, *args))
        return Lazy(step, lambda *args: Graph(record(step, optimizer, *args), None, self.device))


class CUDAGraph:
    """The whole step captured as a CUDA graph: one launch instead of a hundred. On another device it runs eagerly."""

    def __init__(self, device: torch.device, calls: int, why: str = "asked for"):
        self.device = device
        self.why = f"cudagraph ({why})" if device.type == "cuda" else f"eager (cudagraph needs a GPU, not {device})"

    def capture(self, step: Callable, optimizer: torch.optim.Optimizer | None = None) -> Callable:
        return Lazy(step, lambda *args: Graph(step, optimizer, self.device)) if self.device.type == "cuda" else step


class Lazy:
    """A step that is prepared at its first call with arguments of some shapes; where that fails it runs as written, and
    the log says why."""

    def __init__(self, step: Callable, prepare: Callable[[], Callable]):
        self.step, self.prepare = step, prepare
        self.ready: dict[tuple[torch.Size, ...], Callable] = {}

    def __call__(self, *args: Tensor) -> Any:
        shapes = tuple(x.shape for x in args)
        if shapes not in self.ready:
            try:
                ready = self.prepare(*args)
                result = ready(*args)
                self.ready[shapes] = ready
                return result
            except Exception as error:  # whatever a compiler may raise: nothing has been changed yet
                give_up(error)
                self.ready[shapes] = self.step
        return self.ready[shapes](*args)


def auto(device: torch.device, calls: int) -> Eager | Compiled | CUDAGraph:
    """A CUDA graph on a GPU; on a CPU compiled where there is a C++ compiler and enough to do, else as written."""
    if device.type == "cuda":
        return CUDAGraph(device, calls, "auto: a GPU")
    missing = compiler_missing()
    if missing or calls < PAYS:
        return Eager(device, calls, f"auto: {missing or f'{calls:,} updates, compiling pays from {PAYS:,}'}")
    return Compiled(device, calls, f"auto: {calls:,} updates")
