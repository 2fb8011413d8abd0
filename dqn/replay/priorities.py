"""The sum tree: draw from many priorities in proportion, change a few, each in a handful of small steps."""

from __future__ import annotations

import torch
from torch import Tensor

FAN_OUT = 64  # children of a node: a million leaves are four levels


class SumTree:
    """Priorities of `leaves` leaves and the sums over them, float64; fixed shapes, no wait for the device.

    A parent is always summed anew from its children, so nothing drifts. All levels lie in one storage, `nodes`, the
    leaves first, so that a copy of it is the whole state. Schaul et al. (2016), appendix B.2.1, with a wider tree.

    Errors: ValueError when there are no leaves.
    """

    def __init__(self, leaves: int, device: torch.device | str = "cpu"):
        if leaves < 1:
            raise ValueError(f"a sum tree needs at least one leaf, got {leaves}")
        sizes = [leaves]
        while sizes[-1] > 1:
            sizes.append(-(-sizes[-1] // FAN_OUT))
        padded = [-(-size // FAN_OUT) * FAN_OUT for size in sizes[:-1]] + [1]
        self.nodes = torch.zeros(sum(padded), dtype=torch.float64, device=device)
        self.levels = list(self.nodes.split(padded))  # leaves … root
        self.children = [level.view(-1, FAN_OUT) for level in self.levels[:-1]]  # of each node of the level above
        self.leaves = leaves
        self.zero = torch.zeros((), dtype=torch.float64, device=device)

    @property
    def total(self) -> Tensor:
        """The sum of all priorities, 0-D."""
        return self.levels[-1][0]

    def values(self, leaf: Tensor) -> Tensor:
        """Priorities of the leaves [B]."""
        return self.levels[0][leaf]

    def set(self, leaf: Tensor, value: Tensor) -> None:
        """Give leaves [B] the priorities `value` [B] ≥ 0; of a leaf that is named twice the largest counts."""
        value = value.to(torch.float64)
        self.levels[0].index_fill_(0, leaf, 0.0).scatter_reduce_(0, leaf, value, "amax")
        whole = len(leaf) * FAN_OUT >= self.leaves  # so many that every parent is summed in one go
        for children, parents in zip(self.children, self.levels[1:], strict=True):
            if whole:
                parents[: len(children)] = children.sum(-1)
            else:
                leaf = leaf // FAN_OUT
                parents[leaf] = children.index_select(0, leaf).sum(-1)

    def find(self, mass: Tensor) -> Tensor:
        """The leaf [B] with Σ_{i<leaf} p_i ≤ mass < Σ_{i≤leaf} p_i, for mass [B] in [0, total).

        Never one of priority zero while any is above; mass beyond the end, as rounding makes it, is the last such leaf.
        """
        node = torch.zeros_like(mass, dtype=torch.int64)
        for children in reversed(self.children):
            row = children.index_select(0, node)  # [B, F]
            upto = row.cumsum(-1)
            mass = torch.minimum(mass, torch.nextafter(upto[:, -1], self.zero))  # what rounding put beyond the end
            child = torch.searchsorted(upto, mass[:, None], right=True)  # the first that reaches beyond the mass
            before = (upto.gather(-1, child) - row.gather(-1, child))[:, 0]
            mass = (mass - before).clamp_min(0.0)
            node = node * FAN_OUT + child[:, 0]
        return node
