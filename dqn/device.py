"""Which device a run uses, and where its replay memory lies."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from dqn.errors import UsageError


def choose_device(name: str) -> tuple[torch.device, str]:
    """The device and the reason it was chosen. `auto` takes a usable GPU, else the CPU; a named device must work.

    Errors: UsageError when the named device is unknown or not usable here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda"), f"auto: {torch.cuda.get_device_name()} is usable"
        return torch.device("cpu"), "auto: no CUDA device is usable"
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):  # as mps, which has no float64 for the replay memory's sampling
            raise UsageError(f"device={name} is not supported: choose device=auto, cpu or cuda.")
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(f"device={name} cannot be used here ({reason}): choose device=auto or device=cpu.") from None
    return device, f"asked for by device={name}"


@contextmanager
def same_process() -> Iterator[None]:
    """torch's settings and its random numbers are after the block as they were before: the number of threads, how
    float32 products are computed, and the streams of the CPU and of every GPU in use."""
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.set_float32_matmul_precision(precision)


def choose_place(name: str, device: torch.device) -> torch.device:
    """Where the replay memory lies: with the network (`auto`), or, for more than a GPU holds, in the computer's own
    memory (`cpu`) or in a file (`memmap`); batches then travel.

    Errors: UsageError for another place, or `cuda` without it.
    """
    if name not in ("auto", "cpu", "cuda", "memmap") or (name == "cuda" and device.type != "cuda"):
        raise UsageError(
            f"replay.device must be auto, cpu, memmap, or cuda with device=cuda; got {name} with device={device}."
        )
    return torch.device("cpu") if name in ("cpu", "memmap") else device


def flush_denormals(step: Callable) -> Callable:
    """The step with numbers too small to be normal taken as zero on a CPU, and only there: it is a state of the
    processor. Adam's averages of a weight without gradient become such, and are slow to compute with."""

    def call(*args: Any) -> Any:
        torch.set_flush_denormal(True)
        try:
            return step(*args)
        finally:
            torch.set_flush_denormal(False)

    return call


def set_precision(name: str) -> torch.dtype | None:
    """How float32 products are computed: `float32` as they are, `tf32` with factors rounded to it on a GPU that can
    (torch's default for convolutions there), `bf16` in it; the dtype for autocast, where there is one.

    Errors: UsageError for another name.
    """
    if name not in ("float32", "tf32", "bf16"):
        raise UsageError(f"execution.precision must be float32, tf32 or bf16, got {name!r}.")
    torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
    return torch.bfloat16 if name == "bf16" else None
