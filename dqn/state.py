"""What parts keep, as one flat dictionary of tensors, and back."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor


def pack(parts: dict[str, Any]) -> dict[str, Tensor]:
    """One flat dictionary from the `state()` of every part: name/key → tensor."""
    return {f"{name}/{key}": value for name, part in parts.items() for key, value in part.state().items()}


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors below `prefix`, named without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def unpack(parts: dict[str, Any], tensors: dict[str, Tensor]) -> Iterator[str]:
    """Give every part its tensors back; yields a line about each."""
    for name, owner in parts.items():
        own = part(tensors, f"{name}/")
        owner.load(own)
        size = sum(v.numel() * v.element_size() for v in own.values())
        yield f"{name}: {len(own)} tensors, {size / 1e6:.2f} MB"
