"""Images on a CPU, of which torch.compile's compiler makes slow code: bytes, which it reads eight at a time by way of
a buffer, and convolutions of small images, which oneDNN takes longer to begin than to do."""

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten
WORD = 8  # bytes
BYTES = 1 << 12  # for fewer a call costs more than slow code
PATCHES = 1 << 19  # numbers that all outputs of a convolution see: more leave a core's cache

library = torch.library.Library("dqn", "FRAGMENT")
library.define("floats(Tensor x) -> Tensor")
library.impl("floats", Tensor.float, "CPU")
library.impl("floats", lambda x: torch.empty_like(x, dtype=torch.float32), "Meta")


def _floats(x: Tensor, **options: Any) -> Any:
    """Bytes become floats by torch's own code."""
    if options != {"dtype": torch.float32} or not _bytes(x) or x.numel() < BYTES:
        return NotImplemented
    return torch.ops.dqn.floats(x)


def _bytes(x: Tensor) -> bool:
    return x.dtype == torch.uint8 and x.device.type == "cpu"


def _words(x: Tensor, lead: int) -> Tensor | None:
    """Bytes after the first `lead` axes as words, or nothing where they are none."""
    whole = _bytes(x) and x.is_contiguous() and not x.storage_offset() % WORD and not prod(x.shape[lead:]) % WORD
    return x.flatten(lead).view(torch.int64) if whole else None


def _rows(x: Tensor, dim: int, index: Tensor) -> Any:
    """Rows of bytes, gathered in words."""
    words = _words(x, 1) if dim == 0 else None
    if words is None:
        return NotImplemented
    return words.index_select(0, index).view(torch.uint8).view(-1, *x.shape[1:])


def _masked(x: Tensor, there: Any) -> Any:
    """Bytes times a bool [..., 1, …, 1], zeros where it is false, in words."""
    if not isinstance(there, Tensor) or there.dtype != torch.bool or there.ndim != x.ndim:
        return NotImplemented
    lead = max((axis + 1 for axis, n in enumerate(there.shape) if n > 1), default=0)
    words = _words(x, lead) if there.shape[:lead] == x.shape[:lead] else None
    if words is None:
        return NotImplemented
    mask = -there.flatten(lead).to(torch.int64)  # no bit or every bit
    return (words & mask).view(torch.uint8).view(x.shape)


def _patches(x: Tensor, weight: Tensor, *options: Any) -> Tensor | None:
    """What each output of a convolution sees of small images [N, C, H, W]: [C·h·w, N·(H − h + 1)·(W − w + 1)]."""
    plain = options == ([1, 1], [0, 0], [1, 1], False, [0, 0], 1) and x.device.type == "cpu"
    if not plain or x.dtype != torch.float32 or x.ndim != 4 or 1 in x.shape[:2]:  # what lies by channel could be a view
        return None
    shape = (x.shape[1], *weight.shape[2:], x.shape[0], *_outputs(x, weight))
    if prod(shape) > PATCHES:
        return None
    by_channel = x.transpose(0, 1).contiguous()
    channel, image, row, _ = by_channel.stride()
    return by_channel.as_strided(shape, (channel, row, 1, image, row, 1)).reshape(prod(shape[:3]), -1)


def _outputs(x: Tensor, weight: Tensor) -> list[int]:
    return [n - k + 1 for n, k in zip(x.shape[2:], weight.shape[2:], strict=True)]


def _convolution(x: Tensor, weight: Tensor, bias: Tensor | None, *options: Any) -> Any:
    """A product with what each output sees."""
    patches = _patches(x, weight, *options)
    if patches is None:
        return NotImplemented
    out = torch.mm(weight.flatten(1), patches)
    out = out if bias is None else out + bias[:, None]
    return out.view(len(weight), len(x), *_outputs(x, weight)).transpose(0, 1)


def _convolution_backward(g: Tensor, x: Tensor, weight: Tensor, biases: Any, *options: Any) -> Any:
    """Of the weight alone, as in a first layer: the same product again."""
    *plain, (of_x, _, of_bias) = options
    patches = None if of_x else _patches(x, weight, *plain)
    if patches is None:
        return NotImplemented
    g = g.transpose(0, 1).reshape(len(weight), -1)
    return None, torch.mm(g, patches.t()).view(weight.shape), g.sum(1) if of_bias else None


OF_IMAGES: dict[Any, Callable] = {
    aten._to_copy.default: _floats, aten.index_select.default: _rows, aten.mul.Tensor: _masked,
    aten.convolution.default: _convolution, aten.convolution_backward.default: _convolution_backward,
}  # fmt: skip
