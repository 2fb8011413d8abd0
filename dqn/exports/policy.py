"""The greedy policy as a function of what an environment shows: arrays in, the environment's own actions out."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dqn.envs.interface import Interface
from dqn.envs.spaces import leaves
from dqn.networks.qnetwork import QNetwork
from dqn.networks.records import split
from dqn.types import MASK, OBSERVATION, Spec

CORE_STATE = "core_state"  # what a recurrent network remembers
OUTPUTS = ("action", "q", f"next_{CORE_STATE}")


@dataclass(frozen=True)
class Input:
    """One array that the policy takes: the observation, an entry of it, or the mask of legal actions.

    `shape` and `dtype` are the environment's. `path` leads to it in the observation; None where the mask comes in the
    info. `part` is its name in the network's record, `seen_as` its dtype there; states are numbered from `start`.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    path: tuple[str, ...] | None
    part: str
    seen_as: np.dtype
    start: int = 0

    def plain(self) -> dict[str, Any]:
        """As values that JSON can hold."""
        path = None if self.path is None else [*self.path]
        return {"name": self.name, "shape": [*self.shape], "dtype": str(self.dtype), "path": path}


def inputs_of(spec: Spec, interface: Interface | None) -> list[Input]:
    """What the policy takes, in the order of the network's record; `interface` is None in tensor worlds."""
    parts = spec.parts or ((OBSERVATION, spec),)
    if interface is None:
        return [Input(_free(name), p.obs_shape, p.obs_dtype, (), name, p.obs_dtype) for name, p in parts]
    seen, spaces = interface.observations, dict(leaves(interface.observation_space))
    inputs = [
        Input(_free(name), p.obs_shape, np.dtype(spaces[path].dtype), path, name, p.obs_dtype, start)
        for path, start, (name, p) in zip(seen.paths, seen.starts, parts, strict=False)
    ]
    if interface.masked:
        path = seen.own_mask
        own = None if path is None else spaces[path]
        shape = (spec.num_actions,) if own is None else tuple(own.shape or ())
        dtype = np.dtype(np.int8 if own is None else own.dtype)
        inputs.append(Input(MASK, shape, dtype, path, MASK, np.dtype(bool)))
    return inputs


def _free(name: str) -> str:
    """The name, or another where an output of the policy has it."""
    return f"{OBSERVATION}.{name}" if name in (*OUTPUTS, CORE_STATE) else name


class Policy(nn.Module):
    """a = argmax_a Q(s, a) over the legal actions.

    Takes the inputs [B, *shape], and with a recurrent network what it remembers, core_state [B, S], zeros where an
    episode begins. Gives the environment's actions [B, *shape], q [B, A] (types.ILLEGAL where an action is not legal),
    and next_core_state [B, S]. Normaliser, scaling of bytes and the numbering of actions are inside.
    """

    actions: Tensor | None

    def __init__(self, network: QNetwork, spec: Spec, interface: Interface | None):
        super().__init__()
        self.network, self.inputs = _without_adaptive_pools(network.eval()), inputs_of(spec, interface)
        self.state_size = network.state_size
        self.dtypes = [_torch_dtype(one.seen_as) for one in self.inputs]
        numbered = interface is None or interface.actions.plain
        table = None if numbered or interface is None else interface.actions(np.arange(spec.num_actions))
        self.register_buffer("actions", None if table is None else torch.from_numpy(table))  # [A, *shape]

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        seen: dict[str, Tensor] = {}
        for one, dtype, x in zip(self.inputs, self.dtypes, given, strict=False):
            entry = x.flatten(1) if one.part == MASK else x - one.start if one.start else x
            seen[one.part] = entry != 0 if dtype == torch.bool else entry.to(dtype)
        mask = seen.pop(MASK, None)
        shown = seen[OBSERVATION] if [*seen] == [OBSERVATION] else seen
        state = given[-1] if self.state_size else given[0].new_zeros(0)
        values, state = self.network.step_seen(shown, state, mask)
        number = values.q.argmax(-1)
        action = number if self.actions is None else self.actions[number]
        return (action, values.q, state) if self.state_size else (action, values.q)

    @property
    def action_dtype(self) -> np.dtype:
        """Of the environment's actions."""
        return np.dtype(np.int64) if self.actions is None else self.actions.numpy().dtype

    @property
    def input_names(self) -> list[str]:
        """In the order of the arguments."""
        return [*(one.name for one in self.inputs), *([CORE_STATE] if self.state_size else [])]

    @property
    def output_names(self) -> list[str]:
        """In the order of the results."""
        return [*OUTPUTS[: 3 if self.state_size else 2]]

    def example(self, batch: int) -> tuple[Tensor, ...]:
        """Arguments for so many environments: zeros, and every action legal."""
        shown = [
            torch.full((batch, *one.shape), one.start + (one.part == MASK), dtype=_torch_dtype(one.dtype))
            for one in self.inputs
        ]
        return (*shown, *([self.network.initial(batch)] if self.state_size else []))

    def arguments(self, obs: np.ndarray, state: Tensor) -> list[np.ndarray]:
        """The arguments for observations as the network reads them [B, ...], and what is remembered [B, S]."""
        record = torch.from_numpy(obs)
        parts = split(self.network.parts, record) if self.network.parts else {OBSERVATION: record}
        shown = [
            (parts[one.part].numpy() + one.start).reshape(len(obs), *one.shape).astype(one.dtype) for one in self.inputs
        ]
        return [*shown, *([state.numpy()] if self.state_size else [])]


class Pooled(nn.Module):
    """nn.AdaptiveMaxPool2d in slices, as ONNX has no such pool: [..., H, W] → [..., *size].

    Output i of n is the maximum of inputs ⌊i·N/n⌋ … ⌈(i+1)·N/n⌉ − 1 of N, along each axis.
    """

    def __init__(self, size: tuple[int, int]):
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        for axis, count in zip((-2, -1), self.size, strict=True):
            whole = x.shape[axis]
            ends = [(i * whole // count, -(-(i + 1) * whole // count)) for i in range(count)]
            x = torch.stack([x.narrow(axis, low, high - low).amax(axis) for low, high in ends], axis)
        return x


def _without_adaptive_pools(network: QNetwork) -> QNetwork:
    """The network, in which each such pool became one in slices."""
    for module in [*network.modules()]:
        for name, child in module.named_children():
            if isinstance(child, nn.AdaptiveMaxPool2d):
                size: Any = child.output_size
                setattr(module, name, Pooled((size, size) if isinstance(size, int) else tuple(size)))
    return network


def _torch_dtype(dtype: np.dtype) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype
