"""Spaces: what Gymnasium's observations and actions are to an agent: arrays, records and numbered actions."""

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space

from dqn.types import MASK, OBSERVATION, Spec, UsageError, layout

ARRAYS = (Box, Discrete, MultiBinary)
MOST_ACTIONS = 1024  # of a MultiDiscrete space, all combinations together


def leaves(space: Space, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Space]]:
    """The entries of a Dict and of the Dicts in it, with their paths; of any other space itself, at the empty path."""
    if isinstance(space, Dict):
        for key, inner in space.items():
            yield from leaves(inner, (*path, str(key)))
    else:
        yield path, space


class Actions:
    """Numbered actions 0 … n−1 → what the environment takes: Discrete, or every combination of a MultiDiscrete.

    Errors: UsageError for continuous actions, or more than 1024 combinations.
    """

    def __init__(self, id: str, space: Space):
        self.sizes: np.ndarray | None = None
        if isinstance(space, Discrete):
            self.n, self.start = int(space.n), int(space.start)
            return
        if not isinstance(space, (MultiDiscrete, MultiBinary)):
            kind = "continuous" if isinstance(space, Box) else type(space).__name__
            raise UsageError(
                f"{id} has {kind} actions ({space}); Q-learning picks among numbered ones: choose an environment with "
                "a Discrete action space, or wrap this one to make its actions discrete."
            )
        multi = isinstance(space, MultiDiscrete)
        self.sizes = np.array(space.nvec) if multi else np.full(space.shape, 2)
        self.start = np.array(space.start) if multi else 0
        self.n = prod(self.sizes.ravel().tolist())
        if self.n > MOST_ACTIONS:
            raise UsageError(
                f"{id} has {self.n:,} combinations of actions ({space}), each an action of its own to Q-learning, and "
                f"at most {MOST_ACTIONS} are taken: wrap the environment to offer fewer."
            )

    def __call__(self, action: np.ndarray) -> np.ndarray:
        """Numbers [E] int64 → the actions of E environments."""
        if self.sizes is None:
            return action + self.start if self.start else action
        digits = np.stack(np.unravel_index(action, tuple(self.sizes.ravel())), -1)  # [E, dimensions]
        return digits.reshape(*action.shape, *self.sizes.shape) + self.start


def has_mask(space: Space, actions: int) -> bool:
    """Whether a Dict observation brings the mask of legal actions itself, as its entry `action_mask` [A]."""
    if not isinstance(space, Dict) or MASK not in space.spaces:
        return False
    entry = space[MASK]
    whole = isinstance(entry, MultiBinary) or (isinstance(entry, Box) and np.dtype(entry.dtype).kind in "iub")
    return whole and entry.shape == (actions,)


class Observations:
    """Reads what environments show into one array each: arrays as they are, Dicts and masks of actions as records.

    Float arrays take torch's default dtype, uint8 and bool stay a byte each, Discrete becomes numbers from 0. A record
    is a uint8 vector of the parts' bytes at the places types.layout gives; nested entries are named with dots.
    `masked`: the mask of legal actions is a part. Errors: UsageError for spaces that are no arrays.
    """

    def __init__(self, id: str, space: Space, actions: int, masked: bool = False):
        self.own_mask = masked and has_mask(space, actions)
        found = [leaf for leaf in leaves(space) if not (self.own_mask and leaf[0] == (MASK,))]
        names = [".".join(path) or OBSERVATION for path, _ in found]
        names = [
            f"{OBSERVATION}.{name}" if name == MASK else name for name in names
        ]  # not the mask: an entry of its own
        if len({*names}) < len(names):
            raise UsageError(f"{id} has entries of the same name, once nested ones are named with dots: {names}.")
        self.paths = [path for path, _ in found]
        self.starts = [int(leaf.start) if isinstance(leaf, Discrete) else 0 for _, leaf in found]
        specs = [_array_spec(id, leaf, actions) for _, leaf in found]
        single = not masked and not isinstance(space, Dict)
        self.plain = single and not self.starts[0]  # arrays as they are
        if single:
            self.spec, self.offsets = specs[0], (0,)
            return
        mask = [(MASK, Spec((actions,), np.dtype(bool), actions))] if masked else []
        parts = (*zip(names, specs, strict=True), *mask)
        self.offsets, total = layout(parts)
        self.spec = Spec((total,), np.dtype(np.uint8), actions, 0, parts)

    def read(self, obs: Any, mask: np.ndarray | None = None) -> np.ndarray:
        """What E environments show, and the mask [E, A] where there is one → [E, *obs_shape]."""
        if self.plain:
            return np.asarray(obs, self.spec.obs_dtype)
        parts = self.spec.parts or ((OBSERVATION, self.spec),)
        arrays = []
        for path, start, (_, part) in zip(self.paths, self.starts, parts, strict=False):
            seen = obs
            for key in path:
                seen = seen[key]
            seen = np.asarray(seen, part.obs_dtype)
            arrays.append(seen - start if start else seen)
        if not self.spec.parts:
            return arrays[0]
        arrays += [] if mask is None else [mask]
        record = np.zeros((len(arrays[0]), *self.spec.obs_shape), np.uint8)  # [E, bytes]
        for array, offset in zip(arrays, self.offsets, strict=True):
            raw = np.ascontiguousarray(array).reshape(len(array), -1).view(np.uint8)
            record[:, offset : offset + raw.shape[1]] = raw
        return record


def _array_spec(id: str, space: Space, actions: int) -> Spec:
    if isinstance(space, Discrete):
        return Spec((), np.dtype(np.int64), actions, int(space.n))
    if isinstance(space, MultiBinary):
        return Spec(tuple(space.shape), np.dtype(bool), actions)
    if not isinstance(space, Box):
        raise UsageError(
            f"{id} has observations of kind {type(space).__name__}; use env.vectorization=sync, "
            "which flattens them to a vector."
        )
    shape, dtype = tuple(space.shape), np.dtype(space.dtype)
    if dtype.kind == "f" and len(shape) >= 3:
        raise UsageError(
            f"{id} shows images of {dtype} {shape}; give them as uint8 in 0…255 (a quarter of the memory): "
            "wrap the environment."
        )
    if dtype not in (np.uint8, np.bool_):
        dtype = np.dtype(np.float64 if torch.get_default_dtype() == torch.float64 else np.float32)
    return Spec(shape, dtype, actions, high=max(1, int(space.high.max())) if dtype == np.uint8 else 255)


def replaced(obs: Any, rows: Mapping[int, Any]) -> Any:
    """A copy of what E environments show, with the observations of some of them put in: {e: observation}."""
    if isinstance(obs, Mapping):
        return {key: replaced(inner, {e: row[key] for e, row in rows.items()}) for key, inner in obs.items()}
    copy = np.array(obs)
    for e, row in rows.items():
        copy[e] = row
    return copy


def misfit(space: Space, obs: Any) -> str:
    """What keeps an observation from being one of a space of arrays, or nothing; values beyond a Box's bounds are
    allowed, as long as its dtype can hold them."""
    if isinstance(space, Dict):
        if not isinstance(obs, Mapping) or {*space} - {*obs}:
            return f"a Dict of {', '.join(space)} was expected, not {_words(obs)}"
        return next((f"{key}: {wrong}" for key, inner in space.items() if (wrong := misfit(inner, obs[key]))), "")
    given = np.asarray(obs)
    if given.shape != space.shape:
        return f"{_words(obs)} where {space} has shape {space.shape}"
    if isinstance(space, Discrete):
        fits = given.dtype.kind in "iu" and space.start <= given < space.start + space.n
        return "" if fits else f"{obs!r} is none of {space}"
    wanted = np.dtype(space.dtype)
    if wanted.kind in "biu" and given.dtype.kind in "biu":
        bounds: Any = None if wanted.kind == "b" else np.iinfo(wanted.name)
        low, high = (0, 1) if bounds is None else (bounds.min, bounds.max)
        fits = not given.size or (low <= given.min() and given.max() <= high)
    else:
        fits = np.can_cast(given.dtype, wanted, "same_kind")
    return "" if fits else f"{_words(obs)} is not {wanted}"


def _words(obs: Any) -> str:
    array = np.asarray(obs) if not isinstance(obs, Mapping) else None
    return f"{type(obs).__name__} of {', '.join(obs)}" if array is None else f"{array.dtype} {array.shape}"
