"""Where observations lie before anything is written: in the computer's memory, on a device, or in a file."""

from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def tensor_dtype(dtype: np.dtype) -> torch.dtype:
    """What tensors keep of an array's numbers: all real ones in torch's default."""
    return torch.get_default_dtype() if dtype.kind == "f" else torch.from_numpy(np.empty(0, dtype)).dtype


def blank(shape: tuple[int, ...], dtype: np.dtype, device: torch.device | str, file: Path | None = None) -> Tensor:
    """Numbers that nobody wrote: NaN, or 0 where there is none.

    They are written here once, so that the system has given the memory before a run begins: one that does not fit fails
    then, and not after hours. In `file` all numbers are 0; it has no name once it is mapped, so nothing stays behind.
    """
    kind = tensor_dtype(dtype)
    if file is not None:
        mapped = torch.from_file(str(file), True, prod(shape), dtype=kind)
        file.unlink()
        return mapped.view(shape)
    return torch.full(shape, float("nan") if kind.is_floating_point else 0, dtype=kind, device=device)
