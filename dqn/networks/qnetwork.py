"""The Q-network: a torso and a head."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from dqn.types import Values


class QNetwork(nn.Module):
    """Q(s, ·) = head(torso(s)): stands where the Q-table stood. obs [..., *obs_shape] → Values with q [..., A]."""

    def __init__(self, torso: nn.Module, head: Any):
        super().__init__()
        self.torso, self.head = torso, head

    def forward(self, obs: Tensor) -> Values:
        return self.head(self.torso(obs))
