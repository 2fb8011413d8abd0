"""Where observations lie before anything is written: in the computer's memory, on a device, or in a file."""

import mmap
import os
from contextlib import suppress
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dqn.errors import UsageError

BLOCK = 1 << 20  # bytes


def tensor_dtype(dtype: np.dtype) -> torch.dtype:
    """What tensors keep of an array's numbers: all real ones in torch's default."""
    return torch.get_default_dtype() if dtype.kind == "f" else torch.from_numpy(np.empty(0, dtype)).dtype


def blank(shape: tuple[int, ...], dtype: np.dtype, device: torch.device | str, file: Path | None = None) -> Tensor:
    """Numbers that nobody wrote: NaN, or 0 where there is none.

    They are written here once, so that the system has given the memory before a run begins: one that does not fit fails
    then, and not after hours. In `file` all numbers are 0.
    Errors: UsageError where the file cannot be made or the disk has no room for it.
    """
    kind = tensor_dtype(dtype)
    if file is not None:
        return torch.frombuffer(_mapped(file, prod(shape) * kind.itemsize), dtype=kind).view(shape)
    return torch.full(shape, float("nan") if kind.is_floating_point else 0, dtype=kind, device=device)


def _mapped(path: Path, size: int) -> mmap.mmap:
    """A new file of zeros that this process alone sees.

    All of it is reserved on the disk before it is mapped, because a page that the disk has no room for ends the process
    (SIGBUS) when it is written. The file is made anew, so no link is followed and no file of another is overwritten. It
    loses its name once it is open, so nothing stays behind when the process ends.
    """
    try:
        path.unlink(missing_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be made ({error.strerror}): set replay.device=cpu, or another run.dir."
        ) from error
    try:
        _reserve(handle, size)
        return mmap.mmap(handle, size)
    except OSError as error:
        raise UsageError(
            f"The disk of {path} has no room for {size / 2**30:.2f} GiB of observations ({error.strerror}): set a "
            "smaller replay.capacity, or run.dir on another disk."
        ) from error
    finally:
        os.close(handle)
        with suppress(OSError):  # Windows keeps the name of a file that is open
            path.unlink()


def _reserve(handle: int, size: int) -> None:
    """Room for the first `size` bytes of a file. Errors: OSError where there is none."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
        return
    for offset in range(0, size, BLOCK):
        os.write(handle, bytes(min(BLOCK, size - offset)))
