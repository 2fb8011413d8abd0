"""The whole step as one CUDA graph."""

import logging
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from dqn.execution.inductor.tracing import count_on_device, in_tensors

log = logging.getLogger("dqn")
INSIDE = (__file__, warnings.__file__, str(Path(torch.__file__).parent))  # frames that tell nobody anything
WARM_UP = 3  # eager calls before the capture, as torch's notes on CUDA graphs advise


class Graph:
    """step() captured at its fourth call; the ones before run eagerly, on a stream of their own."""

    def __init__(self, step: Callable, optimizer: torch.optim.Optimizer | None, device: torch.device):
        self.step, self.device = step, device
        self.stream, self.calls, self.result = torch.cuda.Stream(device), 0, None
        self.args: list[Tensor] = []
        self.graph: torch.cuda.CUDAGraph | None = None
        self.drawn, self.waits = Drawn(), []
        count_on_device(optimizer)

    def __call__(self, *args: Tensor) -> Any:
        if self.graph is not None:
            for mine, given in zip(self.args, args, strict=True):
                mine.copy_(given)
            self.graph.replay()
            return self.result
        self.calls += 1
        if self.calls == WARM_UP + 1:
            try:
                return self._capture(*args)
            except Exception as error:  # nothing has run: a capture only notes what would
                give_up(error)
        if self.calls > WARM_UP:
            return self.step(*args)
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream), self.drawn, in_tensors(), waits() as self.waits:
            result = self.step(*args)
        torch.cuda.current_stream(self.device).wait_stream(self.stream)
        return result

    def _capture(self, *args: Tensor) -> Any:
        if self.waits:  # there a capture would break off, and its generators not recover
            raise RuntimeError(f"{self.waits[0]} waits for the GPU")
        graph, self.args = torch.cuda.CUDAGraph(), [x.clone() for x in args]
        for generator in self.drawn.generators:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph, stream=self.stream), in_tensors():
            self.result = self.step(*self.args)
        self.graph = graph
        graph.replay()
        return self.result


class Drawn(TorchFunctionMode):
    """Notes which generators random numbers were drawn from."""

    def __init__(self):
        super().__init__()
        self.generators: set[torch.Generator] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if kwargs and kwargs.get("generator") is not None:
            self.generators.add(kwargs["generator"])
        return func(*args, **(kwargs or {}))


@contextmanager
def waits() -> Iterator[list[str]]:
    """The places in the code where the host waits for the GPU meanwhile."""
    found: list[str] = []
    mode, usual = torch.cuda.get_sync_debug_mode(), warnings.showwarning

    def show(message: Any, *rest: Any) -> None:
        if "a synchronizing CUDA operation" not in str(message):
            return usual(message, *rest)
        frames = [f for f in traceback.extract_stack()[:-1] if not f.filename.startswith(INSIDE)]
        return found.append(f"{frames[-1].filename}:{frames[-1].lineno}" if frames else str(message))

    with warnings.catch_warnings():
        warnings.filterwarnings("always", "called a synchronizing")
        warnings.filterwarnings("ignore", "Synchronization debug mode")
        warnings.showwarning = show
        torch.cuda.set_sync_debug_mode(max(mode, 1))
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode(mode)


def give_up(error: Exception) -> None:
    """Say once, in one line, that a run goes on without its engine, and why."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[0] if lines else type(error).__name__
    log.warning("Falling back to eager execution: %s", reason)
