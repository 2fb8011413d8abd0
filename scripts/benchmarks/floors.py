"""What `scripts/bench` measures with: a wired run, windows of time, and the floor that arithmetic alone sets."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import gymnasium
import numpy as np
import torch
from hydra import compose, initialize_config_dir
from torch.utils.flop_counter import FlopCounterMode

from dqn import __version__
from dqn.config import build
from dqn.config.cli import CONF
from dqn.errors import RunError
from dqn.execution.graphs import Graph

FILL = 1000  # env_steps in the memory, at least, before updates are timed
FIRST = 10  # calls before the first window: among them those that compile or capture
PRODUCTS = 10  # large ones, whose rate is that of a window


@dataclass
class Window:
    """A stretch of training. `stages` are seconds by stage without checkpoints, and `seconds` is without them too."""

    env_steps: int
    updates: int
    seconds: float
    stages: dict[str, float]


def versions() -> dict[str, str]:
    modules = {"dqn": __version__, "torch": torch.__version__, "gymnasium": gymnasium.__version__}
    return {**modules, "numpy": np.__version__, "python": platform.python_version()}


def wire(overrides: list[str], directory: Path) -> build.Run:
    """A wired run with these overrides of conf/. Errors: Hydra's, and UsageError."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", overrides=[*overrides, "run.dir=unused"])
    directory.mkdir(parents=True, exist_ok=True)
    return build.run(cfg, directory)


@contextmanager
def engine_holds(engine: str) -> Iterator[None]:
    """Where an engine gives up, a run falls back to eager execution: a window of that would not be the engine's.

    Errors: RunError, with the reason.
    """
    log, said, handler = logging.getLogger("dqn"), [], logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
    gave_up = [line for line in said if line.startswith("Falling back to eager execution")]
    if gave_up:
        raise RunError(f"execution={engine}: {gave_up[0]}")


def wait(device: torch.device) -> None:
    """Until the device has done what it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def advance(run: build.Run, until: int) -> Window:
    """Train until `until` env_steps. The checkpoint that ends every stretch is not counted."""
    trainer, seconds = run.trainer, dict(run.trainer.meter.seconds)
    env_steps, updates = trainer.env_steps, trainer.updates
    trainer.times = replace(trainer.times, steps=until)
    started = perf_counter()
    trainer.run()
    wait(run.device)
    total = perf_counter() - started
    stages = {name: now - seconds[name] for name, now in trainer.meter.seconds.items()}
    total -= stages.pop("checkpoint")
    return Window(trainer.env_steps - env_steps, trainer.updates - updates, total, stages)


def fill(run: build.Run) -> None:
    """Fill the memory and learn nothing yet. Errors: RunError where it is still too empty to draw from."""
    trainer, times = run.trainer, run.trainer.times
    enough = max(times.learning_starts, FILL)
    trainer.times = replace(times, learning_starts=enough)
    advance(run, enough)
    trainer.times = times
    trainer.learner.set_lr(enough)
    if not trainer.memory.ready():
        raise RunError(f"The memory cannot be drawn from after {enough:,} env_steps: raise learning_starts.")
    trainer.memory.anneal(enough)


def timed(step: Callable[[], Any], calls: int, device: torch.device) -> float:
    """Seconds that a call takes, over a window of them."""
    wait(device)
    started = perf_counter()
    for _ in range(calls):
        step()
    wait(device)
    return (perf_counter() - started) / calls


def first(step: Callable[[], Any], device: torch.device) -> float:
    """Seconds of the first calls together."""
    return FIRST * timed(step, FIRST, device)


def alternate(programs: dict[str, Callable[[int], Any]], windows: int) -> dict[str, list[Any]]:
    """A window of each program in turn, then the next of each: what disturbs the machine disturbs them alike."""
    measured: dict[str, list[Any]] = {name: [] for name in programs}
    for window in range(windows):
        for name, program in programs.items():
            measured[name].append(program(window))
    return measured


def window(step: Callable[[], Any], calls: int, device: torch.device, parts: int = 1) -> Callable[[int], float]:
    """A window of `calls`: the microseconds of each, or of one of its equal parts."""
    return lambda _: 1e6 * timed(step, calls, device) / parts


def flops(step: Callable[[], Any]) -> int:
    """Floating-point operations of the matrix products and convolutions in one call, forward and backward; a
    multiply-add counts as two. What else a call does is left out, so a floor made of it is one."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def rate(device: torch.device) -> float:
    """Operations a second in some large float32 products, on as many threads as torch has now."""
    size = 4096 if device.type == "cuda" else 1024
    a, b = torch.rand(2, size, size, device=device)
    out = torch.mm(a, b)  # the first one also wakes the library and fetches memory
    return 2 * size**3 / timed(lambda: torch.mm(a, b, out=out), PRODUCTS, device)


def launch(device: torch.device) -> float:
    """Seconds that the smallest captured graph takes, launched again and again; 0 where nothing is launched."""
    if device.type != "cuda":
        return 0.0
    number = torch.zeros((), device=device)
    smallest = Graph(lambda: number.add_(1), None, device)
    timed(smallest, FIRST, device)
    return min(timed(smallest, 1000, device) for _ in range(5))
