"""Engines: how a step is run. Each is made for a device and the number of calls ahead, and has one verb:

`capture(step, optimizer)` takes a step of tensors, with its in-place effects on others, and gives one that does the
same. One body is valid under all engines because state is written in place, shapes are fixed, numbers that vary are
tensors that the host fills, and random numbers come from generators (results are returned as tensors, in tuples and
dicts; they are to be used, or copied, before the next call, which may write over them). `optimizer` is the one that the
step uses, where it uses one. `small` says that arrays may be so small that torch itself is what takes the time. `why`
says in words what was chosen.
"""

import logging
from collections.abc import Callable
from functools import partial
from operator import attrgetter
from statistics import median
from time import process_time
from typing import Any

import torch
from torch import Tensor

from dqn.errors import UsageError
from dqn.execution import measure
from dqn.execution.graphs import Graph, give_up
from dqn.execution.inductor.compiled import cached, compiler_missing, record
from dqn.execution.small import record_small

log = logging.getLogger("dqn")
_shape = attrgetter("shape")
UNTIMED, TIMED = 5, 20  # updates that `auto` only runs, as the first take longer, and those that it times


class Fixed:
    """An engine that was named: there is nothing to choose, or to keep."""

    chosen: str | None = None

    def choose(self, chosen: str | None) -> None:
        """Nothing."""


class Eager(Fixed):
    """Run eagerly; on a CPU small steps, such as acting with a small network, go through NumPy, where torch's own
    overhead would be most of the time."""

    def __init__(self, device: torch.device, calls: int, why: str = "asked for"):
        self.device, self.why = device, f"eager ({why})"

    def capture(self, step: Callable, optimizer: Any = None, small: bool = False) -> Callable:
        if small and self.device.type == "cpu":
            return Lazy(step, partial(record_small, step), quiet=True)
        return step


class Compiled(Fixed):
    """The whole step traced as one graph of tensor operations before its first call, fused by torch.compile; on a
    GPU its kernels are then captured too."""

    def __init__(self, device: torch.device, calls: int, why: str = "asked for"):
        self.device, self.why = device, f"compile ({why})"

    def capture(self, step: Callable, optimizer: Any = None, small: bool = False) -> Callable:
        if self.device.type == "cpu" and small:
            return Lazy(step, partial(_small_or_compiled, step), quiet=True)
        if self.device.type == "cpu":
            return Lazy(step, lambda *args: record(step, optimizer, *args))
        return Lazy(step, lambda *args: Graph(record(step, optimizer, *args), None, self.device))


class CUDAGraph(Fixed):
    """The whole step captured as a CUDA graph: one launch instead of a hundred. On another device it runs eagerly."""

    def __init__(self, device: torch.device, calls: int, why: str = "asked for"):
        self.device = device
        self.why = f"cudagraph ({why})" if device.type == "cuda" else f"eager (cudagraph needs a GPU, not {device})"

    def capture(self, step: Callable, optimizer: Any = None, small: bool = False) -> Callable:
        return Lazy(step, lambda *args: Graph(step, optimizer, self.device)) if self.device.type == "cuda" else step


class Lazy:
    """A step that is prepared at its first call with arguments of some shapes; where that fails it runs eagerly, and
    the log says why, unless it is `quiet`."""

    def __init__(self, step: Callable, prepare: Callable[..., Callable], quiet: bool = False):
        self.step, self.prepare, self.quiet = step, prepare, quiet
        self.ready: dict[tuple[torch.Size, ...], Callable] = {}

    def failed(self, *args: Tensor) -> bool:
        """Whether it runs eagerly for arguments of these shapes."""
        return self.ready.get(tuple(map(_shape, args))) is self.step

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


def auto(device: torch.device, calls: int) -> "Measured | Eager | CUDAGraph":
    """A CUDA graph on a GPU; on a CPU what a measurement says, where there is a C++ compiler."""
    if device.type == "cuda":
        return CUDAGraph(device, calls, "auto: a GPU")
    missing = compiler_missing()
    return Eager(device, calls, f"auto: {missing}") if missing else Measured(device, calls)


class Measured:
    """Compiles if that is about to save more time than it costs.

    The first updates run eagerly; they are timed. A compiled one is estimated by its products, and the price of
    compiling is known, for a program that is in torch's cache and for one that is not. The choice is made once: a
    checkpoint keeps it, and a resume does not measure.
    """

    def __init__(self, device: torch.device, calls: int):
        self.calls = calls
        self.compiled, self.eager = Compiled(device, calls), Eager(device, calls)
        self.chosen: str | None = None
        self.why = f"auto: measures {UNTIMED + TIMED} updates, then compiles if that saves time"
        self.count, self.products = 0, 0.0
        self.seconds: list[float] = []

    def capture(self, step: Callable, optimizer: Any = None, small: bool = False) -> Callable:
        """A step that runs eagerly, or in NumPy if it is `small`, until the choice is made. The one that has an
        optimizer is what is measured."""
        written = self.eager.capture(step, optimizer, small)
        compiled = self.compiled.capture(step, optimizer, small)
        in_numpy = written if isinstance(written, Lazy) else None

        def call(*args: Any) -> Any:
            if self.chosen == "compile" and (in_numpy is None or in_numpy.failed(*args)):
                return compiled(*args)
            if self.chosen is None and optimizer is not None:
                return self._measure(step, optimizer, args)
            return written(*args)

        return call

    def choose(self, chosen: str | None) -> None:
        """Take the choice that a run has made before."""
        if chosen is not None:
            self.chosen, self.why = chosen, f"{chosen} (auto: as this run chose before)"

    def _measure(self, step: Callable, optimizer: Any, args: tuple[Any, ...]) -> Any:
        self.count += 1
        if self.count == UNTIMED:
            result, self.products = measure.products(step, args)
            return result
        started = process_time()
        result = step(*args)
        if self.count > UNTIMED:
            self.seconds.append(process_time() - started)
        if len(self.seconds) == TIMED:
            self._decide(median(self.seconds), partial(cached, step, optimizer, *args))
        return result

    def _decide(self, update: float, in_cache: Callable[[], bool]) -> None:
        left, slowness = max(0, self.calls - self.count), measure.slowness()
        saved = left * max(0.0, update - measure.OVER_PRODUCTS * self.products)
        cold, warm = (measure.PRICES[kind] * slowness for kind in ("cold", "cached"))
        price, kind = cold, "to compile"
        if warm < saved <= cold and in_cache():
            price, kind = warm, "to load it, compiled before,"
        self.chosen = "compile" if saved > price else "eager"
        self.why = (
            f"{self.chosen} (auto: an update takes {1e3 * update:.1f} ms, its matrix products "
            f"{1e3 * self.products:.1f}; for the {left:,} that are left it would save {saved:.0f} s {kind} in "
            f"{price:.0f} s)"
        )
        log.info("Engine: %s", self.why)
