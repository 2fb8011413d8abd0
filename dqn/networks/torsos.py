"""Torsos: what is seen, turned into features.

A torso takes observations [..., *obs_shape] and gives features [..., `features`], or state numbers [...] int64,
which stand for one-hot vectors of length `features` (layers.Linear reads both).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from dqn.networks.layers import Linear, normalisation
from dqn.types import Spec


class TableTorso(nn.Module):
    """The state itself: features = one-hot(obs), kept as its number. obs [...] int64 → [...] int64."""

    def __init__(self, spec: Spec):
        super().__init__()
        if not spec.states:
            raise ValueError(
                "torso=table needs numbered states (a Discrete observation space); choose torso=mlp for vectors"
            )
        self.features = spec.states

    def forward(self, obs: Tensor) -> Tensor:
        return obs


class MLP(nn.Module):
    """Hidden layers x ← relu(norm(W x + b)); images are flattened, uint8 is scaled to [0, 1].

    obs [..., *obs_shape] → [..., hidden[-1]]. State numbers enter through a look-up in the first layer.
    """

    def __init__(
        self,
        spec: Spec,
        hidden: Sequence[int],
        norm: str | None = None,
        layer: Callable[[int, int], nn.Module] = Linear,
    ):
        super().__init__()
        if not hidden or min(hidden) < 1:
            raise ValueError(f"torso.hidden must name at least one positive width, got {list(hidden)}")
        self.flatten = 0 if spec.states else len(spec.obs_shape)
        width = spec.states or int(torch.tensor(spec.obs_shape).prod())
        layers: list[nn.Module] = []
        for out in hidden:
            layers += [layer(width, out), *normalisation(norm, out), nn.ReLU()]
            width = out
        if spec.states:  # a one-hot input has one active entry: its fan-in is 1, not the number of states
            nn.init.uniform_(layers[0].weight, -1.0, 1.0)  # type: ignore[arg-type]
        self.layers = nn.Sequential(*layers)
        self.features = width

    def forward(self, obs: Tensor) -> Tensor:
        if self.flatten:
            obs = obs.flatten(-self.flatten) if self.flatten > 1 else obs
            if obs.dtype == torch.uint8:
                obs = obs.to(torch.get_default_dtype()) / 255
        return self.layers(obs)
