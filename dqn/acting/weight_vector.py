"""A network's values as one vector, to be copied at once."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def numbers_of(network: nn.Module) -> list[Tensor]:
    """The tensors that make its values: all of torch's default dtype. What a normaliser counts, in whole numbers or in
    finer ones, is none of them."""
    return [x for x in network.state_dict(keep_vars=True).values() if x.dtype == torch.get_default_dtype()]


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """All of them in one vector."""
    return torch.cat([x.detach().reshape(-1) for x in tensors])


def views(vector: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """The pieces of `flat`'s vector, each with its tensor's shape."""
    pieces = vector.split([x.numel() for x in tensors])
    return [piece.view(x.shape) for piece, x in zip(pieces, tensors, strict=True)]
