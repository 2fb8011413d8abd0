"""All parameters of a network as one vector, so that an optimizer, a clip and a copy are a few operations for all."""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn

ALIGNED = 64  # bytes: where torch puts tensors of their own; a matrix product rounds by where its factors lie


class ParameterVector:
    """`parameters`, which from now on lie after one another in `vector` and share its memory.

    Between them lies padding (zeros), so that each begins where a tensor of its own would. Parameters keep their
    strides. Errors: ValueError where there are none, or they are not of one dtype and device.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]):
        kinds = {(p.dtype, p.device) for p in parameters}
        if len(kinds) != 1:
            raise ValueError(f"a vector needs parameters of one dtype and device, got {sorted(map(str, kinds))}")
        step = ALIGNED // parameters[0].element_size()
        self.parameters = [*parameters]
        self.pads = [-p.numel() % step for p in parameters]
        sizes = [p.numel() + pad for p, pad in zip(parameters, self.pads, strict=True)]
        self.offsets = [0, *accumulate(sizes)][:-1]
        self.zeros = torch.zeros(step, dtype=parameters[0].dtype, device=parameters[0].device)
        self.vector = nn.Parameter(self.flat([p.detach() for p in parameters]), parameters[0].requires_grad)
        for p, offset in zip(parameters, self.offsets, strict=True):
            p.data = self.vector.data.as_strided(p.shape, p.stride(), offset)

    def flat(self, tensors: Sequence[Tensor | None]) -> Tensor:
        """Tensors of the parameters' shapes, as their gradients, in one vector; None is zeros."""
        pieces = []
        for tensor, p, pad in zip(tensors, self.parameters, self.pads, strict=True):
            pieces.append(torch.zeros_like(p).flatten() if tensor is None else _in_memory_order(tensor, p))
            if pad:
                pieces.append(self.zeros[:pad])
        return torch.cat(pieces)


def _in_memory_order(tensor: Tensor, like: Tensor) -> Tensor:
    """The numbers of a tensor as a vector, in the order in which those of `like` lie in memory."""
    if like.is_contiguous():
        return tensor.reshape(-1)
    order = sorted(range(like.ndim), key=lambda axis: -like.stride(axis))
    return tensor.permute(order).reshape(-1)
