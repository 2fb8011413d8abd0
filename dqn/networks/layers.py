"""Layers: the linear maps every torso and head is built from."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Linear):
    """y = W x + b for features x [..., in]; for state numbers x [...] int64 the same on one-hot vectors,
    y = W[:, x] + b.

    The look-up spares the product with zeros: a table of a million states costs one column per sample.
    """

    def forward(self, input: Tensor) -> Tensor:
        if input.is_floating_point():
            return super().forward(input)
        y = F.embedding(input, self.weight.t())
        return y if self.bias is None else y + self.bias


class Table(Linear):
    """The Q-table as a layer: W [out, in] without bias, starting at `value` everywhere. Watkins (1989)."""

    def __init__(self, in_features: int, out_features: int, value: float = 0.0):
        super().__init__(in_features, out_features, bias=False)
        nn.init.constant_(self.weight, value)


def normalisation(kind: str | None, features: int) -> list[nn.Module]:
    """What stands behind a hidden layer: `layer` is LayerNorm (Ba et al., 2016), `null` nothing."""
    if kind not in (None, "layer"):
        raise ValueError(f"torso.norm must be null or 'layer', got {kind!r}")
    return [nn.LayerNorm(features)] if kind == "layer" else []
