"""What compiling would save here, and what it costs: measured, or known from programs that were compiled before."""

import getpass
import hashlib
import os
import re
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import process_time
from typing import Any

import torch
from torch import fx

# Seconds of one core to compile an update, and to take it from torch's cache: the default run's, torch 2.13, on a core
# that takes LOOP seconds for a loop of Python. Ours: scripts/bench start
PRICES = {"cold": 20.0, "cached": 4.0}
LOOP, TURNS = 0.021, 300_000
OVER_PRODUCTS = 2.0  # a compiled update takes 1.7 to 3 times its matrix products; ours: scripts/bench engines


def products(step: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any, float]:
    """The step's result, and the seconds that its matrix products and convolutions take at this machine's rate."""
    from torch.utils.flop_counter import FlopCounterMode  # half a second of import

    with FlopCounterMode(display=False) as counter:
        result = step(*args)
    size, repeated = 256, 20
    a, b = torch.ones(2, size, size)
    torch.mm(a, b)  # the first one also wakes the library
    started = process_time()
    for _ in range(repeated):
        torch.mm(a, b)
    rate = 2 * size**3 * repeated / max(process_time() - started, 1e-9)
    return result, counter.get_total_flops() / rate


def slowness() -> float:
    """How many times longer this core takes for the work of a compiler than the one of PRICES."""
    started, total = process_time(), 0
    for i in range(TURNS):
        total += i * i
    return (process_time() - started) / LOOP


def program_key(graph: fx.GraphModule, inputs: list[torch.Tensor]) -> str:
    """What tells one program from others: its operations, the tensors that it reads, and torch's version."""
    shapes = [(tuple(x.shape), x.stride(), str(x.dtype), str(x.device)) for x in inputs]
    return hashlib.sha256(f"{torch.__version__} {graph.code} {shapes}".encode()).hexdigest()[:32]


def note_program(key: str) -> None:
    """Remember beside torch's cache that a program is in it."""
    with suppress(OSError):
        folder = _cache() / "dqn"
        folder.mkdir(exist_ok=True)
        (folder / key).touch()


def is_cached(key: str) -> bool:
    """Whether a program was compiled here before, and torch's cache still has programs."""
    return (_cache() / "dqn" / key).is_file() and (_cache() / "fxgraph").is_dir()


def _cache() -> Path:
    """Where torch keeps compiled programs, as torch._inductor.runtime.cache_dir_utils says, whose import takes 4 s."""
    user = re.sub(r'[\\/:*?"<>|]', "_", getpass.getuser())
    return Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR") or Path(tempfile.gettempdir()) / f"torchinductor_{user}")
