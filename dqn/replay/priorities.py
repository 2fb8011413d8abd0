"""The sum tree: draw from many priorities in proportion, change a few, each in a handful of small steps."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

BITS = 4
FAN_OUT = 1 << BITS  # children of a node
TOP = 8192  # nodes of the uppermost level at most, which all draws search together
LESS = 1 - 2**-52  # times a float64: a little less


class SumTree:
    """Priorities of `leaves` leaves and the sums over them, float64; fixed shapes, no wait for the device.

    A parent is always summed anew from its children, so nothing drifts. Each level is a tensor of its own, so that an
    engine can write into it in place. Schaul et al. (2016), appendix B.2.1, with a wider tree.

    Errors: ValueError when there are no leaves.
    """

    def __init__(self, leaves: int, device: torch.device | str = "cpu"):
        if leaves < 1:
            raise ValueError(f"a sum tree needs at least one leaf, got {leaves}")
        sizes = [leaves]
        while sizes[-1] > TOP:
            sizes.append(-(-sizes[-1] // FAN_OUT))
        sizes[:-1] = [parents * FAN_OUT for parents in sizes[1:]]
        self.levels = [torch.zeros(size, dtype=torch.float64, device=device) for size in sizes]  # leaves … top
        self.leaves = leaves

    @property
    def total(self) -> Tensor:
        """The sum of all priorities, 0-D."""
        return self.levels[-1].sum()

    def values(self, leaf: Tensor) -> Tensor:
        """Priorities of the leaves [B]."""
        return self.levels[0][leaf]

    def set(self, leaf: Any, value: Any) -> None:
        """Give leaves [B] the priorities `value` [B] ≥ 0, or one for all; of a leaf that is named twice the last
        counts (on a GPU any). Both are tensors, or on a CPU arrays, which takes a fraction of the time."""
        levels: list[Any] = self.levels
        if not isinstance(leaf, Tensor):
            levels = [level.numpy() for level in levels]
        value = value.to(torch.float64) if isinstance(value, Tensor) else value
        whole = len(leaf) * FAN_OUT >= self.leaves  # so many that every parent is summed in one go
        levels[0][leaf] = value
        for children, parents in pairwise(levels):
            nodes = children.reshape(-1, FAN_OUT)
            if whole:
                parents[: len(nodes)] = nodes.sum(-1)
            else:
                leaf = leaf >> BITS
                parents[leaf] = nodes[leaf].sum(-1)

    def find(self, mass: Tensor) -> Tensor:
        """The leaf [B] with Σ_{i<leaf} p_i ≤ mass < Σ_{i≤leaf} p_i, for mass [B] in [0, total).

        Never one of priority zero while any is above; mass beyond the end, as rounding makes it, is the last such leaf.
        Where a priority is no finite number it is any leaf.
        """
        upto = self.levels[-1].cumsum(-1)
        mass = torch.minimum(mass, upto[-1] * LESS)  # what rounding put beyond the end
        node = torch.searchsorted(upto, mass, right=True)
        mass = mass - torch.where(node > 0, upto[(node - 1).clamp_min(0)], 0.0)
        for level in reversed(self.levels[:-1]):
            nodes = level.view(-1, FAN_OUT)
            node = node.clamp_max(len(nodes) - 1)
            upto = nodes.index_select(0, node).cumsum(-1)  # [B, F]
            mass = torch.minimum(mass, upto[:, -1] * LESS)
            # A search apart from the gathers round it: these then wait for the memory of many draws at once.
            below = torch.searchsorted(upto, mass[:, None], right=True)  # [B, 1]
            before = upto.gather(1, (below - 1).clamp_min(0))
            mass = mass - torch.where(below > 0, before, 0.0)[:, 0]
            node = node * FAN_OUT + below[:, 0]
        return node.clamp_max(self.leaves - 1)

    def state(self) -> Tensor:
        """All sums, so that a copy goes on with the very same ones."""
        return torch.cat(self.levels)

    def load(self, state: Tensor) -> None:
        for level, saved in zip(self.levels, state.split([len(level) for level in self.levels]), strict=True):
            level.copy_(saved)
