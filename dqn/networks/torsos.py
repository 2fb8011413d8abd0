"""Torsos: what is seen, turned into features.

A torso takes observations [..., *obs_shape] and gives features [..., `features`], or state numbers [...] int64,
which stand for one-hot vectors of length `features` (layers.Linear reads both). A Dict comes as a dict of tensors.
"""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dqn.networks.layers import Linear, hidden_layers
from dqn.types import Spec


def real(obs: Tensor, spec: Spec) -> Tensor:
    """What is seen as floats: uint8 is scaled from 0…`high` to [0, 1], bool, as it is or as bytes, becomes 0 and 1."""
    floats = obs if obs.is_floating_point() else obs.to(torch.get_default_dtype())
    return floats / spec.high if obs.dtype == torch.uint8 and spec.obs_dtype != np.bool_ else floats


def width(spec: Spec) -> int:
    """Length of what is seen as one vector."""
    if spec.parts:
        return sum(width(part) for _, part in spec.parts)
    return spec.states or prod(spec.obs_shape)


def vector(spec: Spec, obs: Any) -> Tensor:
    """What is seen as one vector of floats [..., width]: arrays flattened, numbers one-hot, the parts of a Dict in
    their order."""
    if spec.parts:
        return torch.cat([vector(part, obs[name]) for name, part in spec.parts], -1)
    if spec.states:
        return F.one_hot(obs, spec.states).to(torch.get_default_dtype())
    axes = len(spec.obs_shape)
    return real(obs.flatten(-axes) if axes > 1 else obs if axes else obs.unsqueeze(-1), spec)


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
    """Hidden layers x ← relu(norm(W x + b)); images are flattened, uint8 is scaled to [0, 1], a Dict is one vector.

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
        self.spec, self.features = spec, hidden[-1]
        layers = hidden_layers(width(spec), hidden, layer, norm)
        if spec.states:  # a one-hot input has one active entry: its fan-in is 1, not the number of states
            nn.init.uniform_(layers[0].weight, -1.0, 1.0)  # type: ignore[arg-type]
        self.layers = nn.Sequential(*layers)

    def forward(self, obs: Any) -> Tensor:
        return self.layers(obs if self.spec.states else vector(self.spec, obs))


class DictTorso(nn.Module):
    """A torso for each entry of a Dict, their features after one another: φ(s) = [φ₁(s₁), φ₂(s₂), …].

    Entries with three axes, whatever their dtype, get an `image` torso, all others a `vector` torso; `keys` names other
    ones by entry. Nested entries are named with dots. {name: [..., *shape]} → [..., Σ features].
    Errors: ValueError where observations are no Dict or `keys` names no entry.
    """

    def __init__(
        self,
        spec: Spec,
        image: Callable[..., Any],
        vector: Callable[..., Any],
        keys: Mapping[str, Callable[..., Any]] | None = None,
    ):
        super().__init__()
        self.names = [name for name, _ in spec.parts]
        if not spec.parts:
            raise ValueError("torso=dict needs a Dict observation space; choose torso=mlp or a torso for images")
        if strange := set(keys or {}) - set(self.names):
            raise ValueError(
                f"torso.keys names {sorted(strange)}, the observation has {self.names}; correct torso.keys"
            )
        torsos = []
        for name, part in spec.parts:
            seen_as = image if len(part.obs_shape) == 3 else vector
            torsos.append((keys or {}).get(name, seen_as)(part))
        self.torsos = nn.ModuleList(torsos)
        self.features = sum(torso.features for torso in torsos)

    def forward(self, obs: Mapping[str, Tensor]) -> Tensor:
        features = []
        for name, torso in zip(self.names, self.torsos, strict=True):
            x = torso(obs[name])
            features.append(x if x.is_floating_point() else F.one_hot(x, torso.features).to(torch.get_default_dtype()))  # pyright: ignore[reportArgumentType, reportCallIssue]
        return torch.cat(features, -1)
