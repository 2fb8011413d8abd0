"""Records: observations in which several arrays travel as one vector of bytes, taken apart without a copy.

The adapter of the environments writes them (a Dict observation, a mask of legal actions); what lies between, the
stage, the ring and the checkpoints, knows nothing of it.
"""

from dataclasses import replace
from math import prod

import numpy as np
import torch
from torch import Tensor

from dqn.types import MASK, OBSERVATION, PRIOR, Spec, layout


def split(parts: tuple[tuple[str, Spec], ...], record: Tensor) -> dict[str, Tensor]:
    """The parts of a record by name, as views: record [..., bytes] uint8 → {name: [..., *shape] of its dtype}.

    Errors: ValueError when `record` is not made of these parts.
    """
    offsets, total = layout(parts)
    if record.dtype != torch.uint8 or record.shape[-1] != total:
        raise ValueError(
            f"a record of {', '.join(name for name, _ in parts)} is uint8 [..., {total}], "
            f"got {record.dtype} {tuple(record.shape)}"
        )
    found = {}
    for (name, part), offset in zip(parts, offsets, strict=True):
        dtype = torch.from_numpy(np.empty(0, part.obs_dtype)).dtype
        raw = record[..., offset : offset + prod(part.obs_shape) * part.obs_dtype.itemsize]
        raw = (
            raw != 0 if dtype == torch.bool else raw.view(dtype)
        )  # bools seen in bytes: no compiler for a CPU has them
        found[name] = raw.unflatten(-1, part.obs_shape) if part.obs_shape else raw.squeeze(-1)
    return found


def inner(spec: Spec) -> Spec:
    """What a torso sees of `spec`: no mask, no prior, and where one array is left, called `observation`, that alone.

    With `parts` left (a Dict) a torso gets a dict of tensors, one a part.
    """
    parts = tuple((name, part) for name, part in spec.parts if name not in (MASK, PRIOR))
    if [name for name, _ in parts] == [OBSERVATION]:
        return parts[0][1]
    return replace(spec, parts=parts)
