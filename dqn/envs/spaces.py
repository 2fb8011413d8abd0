"""Spaces: what Gymnasium's observations and actions are to an agent: arrays, records and numbered actions."""

from collections.abc import Iterator, Mapping
from math import inf, isfinite, prod
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space

from dqn.errors import UsageError
from dqn.types import MASK, OBSERVATION, Spec, layout

ARRAYS = (Box, Discrete, MultiBinary)
FEW = 32  # numbers that Python adds up sooner than NumPy
MAX_ACTIONS = 1024  # of a MultiDiscrete space, all combinations together: env.max_actions
Path = tuple[str, ...]


def leaves(space: Space, path: Path = ()) -> Iterator[tuple[Path, Space]]:
    """The entries of a Dict and of the Dicts in it, with their paths; of any other space itself, at the empty path."""
    if isinstance(space, Dict):
        for key, inner in space.items():
            yield from leaves(inner, (*path, str(key)))
    else:
        yield path, space


class Actions:
    """Numbered actions 0 … n−1 → what the environment takes: Discrete, or every combination of a MultiDiscrete or
    MultiBinary, the last dimension counting fastest. What it gives lies in the environment's action space: it has the
    space's dtype and shape.

    `mask_shapes` are the shapes that a mask of legal actions may have: a value for each numbered action, [n], or for
    each combination, [n₁, n₂, …].
    Errors: UsageError for continuous actions, or for more than `most` combinations.
    """

    def __init__(self, id: str, space: Space, most: float = inf):
        self.sizes: np.ndarray | None = None
        if isinstance(space, Discrete):
            self.n, self.start, self.dtype = int(space.n), int(space.start), np.dtype(space.dtype)
            self.mask_shapes: tuple[tuple[int, ...], ...] = ((self.n,),)
            self.plain = self.start == 0 and self.dtype == np.int64  # a number is an action of the environment
            return
        if not isinstance(space, (MultiDiscrete, MultiBinary)):
            kind = "continuous" if isinstance(space, Box) else type(space).__name__
            raise UsageError(
                f"{id} has {kind} actions ({space}); Q-learning picks among numbered ones: choose an environment with "
                "a Discrete action space, or wrap this one to make its actions discrete."
            )
        multi = isinstance(space, MultiDiscrete)
        self.sizes = np.array(space.nvec) if multi else np.full(space.shape, 2)
        self.start = np.array(space.start, np.int64) if multi else 0
        self.dtype, self.plain = np.dtype(space.dtype), False
        counts = tuple(self.sizes.ravel().tolist())
        self.n = prod(counts)
        self.mask_shapes = ((self.n,), counts)
        if self.n > most:
            raise UsageError(
                f"{id} has {self.n:,} combinations of actions ({space}), and each is an action of its own to "
                f"Q-learning, with an output of its own in the network. At most env.max_actions={most} are taken: set "
                f"env.max_actions={self.n} to take all of these, or wrap the environment to offer fewer."
            )

    def __call__(self, action: np.ndarray) -> np.ndarray:
        """Numbers [E] int64 → the actions of E environments, [E, *shape] of the action space's shape and dtype."""
        if self.plain:
            return action
        if self.sizes is None:
            return (action + self.start).astype(self.dtype)
        digits = np.stack(np.unravel_index(action, tuple(self.sizes.ravel())), -1)  # [E, dimensions]
        return (digits.reshape(*action.shape, *self.sizes.shape) + self.start).astype(self.dtype)

    def legal(self, masks: Any) -> np.ndarray:
        """Which actions are legal [M, A] bool, from M masks of any dtype whose values are 0 and 1.

        Errors: ValueError, words to put after "an action mask", for values or shapes that no mask has.
        """
        given = np.asarray(masks)
        if given.dtype == object:  # lists or arrays in an array of objects
            given = _stacked(given)
        if given.dtype.kind not in "biuf":
            raise ValueError(f"that is no array of numbers ({given.tolist()!r:.80}): give 1 for a legal action, else 0")
        if given.shape[1:] not in self.mask_shapes:
            shapes = " or ".join(map(str, dict.fromkeys(self.mask_shapes)))
            raise ValueError(f"of shape {given.shape[1:]} for {self.n} actions: give {shapes}")
        given = given.reshape(len(given), self.n)
        if given.dtype == np.bool_:
            return given
        legal = given == 1
        if np.count_nonzero(legal) != np.count_nonzero(given):  # NaN counts as one that is not zero
            odd = given[~legal & (given != 0)][0]
            raise ValueError(f"that holds {odd}: give 1 for a legal action, else 0")
        return legal

    def legal_of_one(self, mask: Any) -> np.ndarray:
        """Which actions are legal [A] bool, from the mask of one environment. Errors: as `legal`."""
        if self.sizes is not None and isinstance(mask, tuple):  # of two dimensions alike it would look like a matrix
            raise ValueError(f"that is a tuple, of a mask for each dimension: give an array {self.mask_shapes[-1]}")
        if type(mask) is np.ndarray or isinstance(mask, np.generic):
            return self.legal(np.asarray(mask)[None])[0]
        return self.legal(_stacked([mask]))[0]


def _stacked(given: Any) -> np.ndarray:
    """Lists, or an array of objects, as one array of numbers; an array of objects where there is none."""
    try:
        return np.array(given.tolist() if isinstance(given, np.ndarray) else given)
    except ValueError:  # a ragged list
        return np.array(given, object)


def mask_path(id: str, space: Space, actions: Actions) -> Path | None:
    """Where a Dict observation brings the mask of legal actions itself: the path of its entry called `action_mask`,
    also in a Dict within it; None where there is no such entry.

    Errors: UsageError where there are several, or where the entry cannot be a mask.
    """
    found = [(path, entry) for path, entry in leaves(space) if path[-1:] == (MASK,)]
    if not found:
        return None
    names, (path, entry) = [".".join(path) for path, _ in found], found[0]
    if len(found) > 1:
        raise UsageError(f"{id} shows several masks of legal actions, {', '.join(names)}: keep one.")
    if not isinstance(entry, (Box, MultiBinary)) or entry.shape not in actions.mask_shapes:
        shapes = " or ".join(map(str, dict.fromkeys(actions.mask_shapes)))
        raise UsageError(
            f"{id} shows an entry `{names[0]}` that is no mask of its {actions.n} actions ({entry}): a mask is an "
            f"array of shape {shapes}. Give it that shape, or set env.action_mask=none to see it as an observation."
        )
    return path


class Observations:
    """Reads what environments show into one array each: arrays as they are, Dicts and masks of actions as records.

    Float arrays take torch's default dtype, uint8 and bool stay a byte each, Discrete becomes numbers from 0. A record
    is a uint8 vector of the parts' bytes at the places types.layout gives; nested entries are named with dots.
    `masked`: the mask of legal actions is a part, which the entry at path `own_mask` brings, where there is one.
    Errors: UsageError for spaces that are no arrays.
    """

    def __init__(self, id: str, space: Space, actions: Actions, masked: bool = False):
        self.own_mask = mask_path(id, space, actions) if masked else None
        found = [leaf for leaf in leaves(space) if self.own_mask is None or leaf[0] != self.own_mask]
        names = [".".join(path) or OBSERVATION for path, _ in found]
        names = [f"{OBSERVATION}.{name}" if name == MASK else name for name in names]  # an entry that is not the mask
        if len({*names}) < len(names):
            raise UsageError(f"{id} has entries of the same name, once nested ones are named with dots: {names}.")
        self.paths = [path for path, _ in found]
        self.starts = [int(leaf.start) if isinstance(leaf, Discrete) else 0 for _, leaf in found]
        specs = [_array_spec(id, leaf, actions.n) for _, leaf in found]
        single = not masked and not isinstance(space, Dict)
        self.plain = single and not self.starts[0]  # arrays as they are
        if single:
            self.spec, self.offsets = specs[0], (0,)
            return
        mask = [(MASK, Spec((actions.n,), np.dtype(bool), actions.n))] if masked else []
        parts = (*zip(names, specs, strict=True), *mask)
        self.offsets, total = layout(parts)
        self.spec = Spec((total,), np.dtype(np.uint8), actions.n, 0, parts)

    def mask_of(self, obs: Any) -> Any:
        """The mask of legal actions that observations bring themselves, as it was given."""
        return _entry(obs, self.own_mask or ())

    def read(self, obs: Any, mask: np.ndarray | None = None) -> np.ndarray:
        """What E environments show, and the mask [E, A] where there is one → [E, *obs_shape]."""
        if self.plain:
            return np.asarray(obs, self.spec.obs_dtype)
        parts = self.spec.parts or ((OBSERVATION, self.spec),)
        arrays = []
        for path, start, (_, part) in zip(self.paths, self.starts, parts, strict=False):
            seen = np.asarray(_entry(obs, path), part.obs_dtype)
            arrays.append(seen - start if start else seen)
        if not self.spec.parts:
            return arrays[0]
        arrays += [] if mask is None else [mask]
        record = np.zeros((len(arrays[0]), *self.spec.obs_shape), np.uint8)  # [E, bytes]
        for array, offset in zip(arrays, self.offsets, strict=True):
            raw = np.ascontiguousarray(array).reshape(len(array), -1).view(np.uint8)
            record[:, offset : offset + raw.shape[1]] = raw
        return record


def _entry(obs: Any, path: Path) -> Any:
    for key in path:
        obs = obs[key]
    return obs


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
    try:
        given = np.asarray(obs)
    except ValueError:  # a ragged list
        return f"{type(obs).__name__} is no array"
    return _misfit_of_array(space, given, obs)


def _misfit_of_array(space: Space, given: np.ndarray, obs: Any) -> str:
    if given.shape != space.shape:
        return f"{_words(obs)} where {space} has shape {space.shape}"
    if isinstance(space, Discrete):
        fits = given.dtype.kind in "iu" and space.start <= given < space.start + space.n
        return "" if fits else f"{obs!r} is none of {space}"
    if not _holds(np.dtype(space.dtype), given):
        return f"{_words(obs)} is not {space.dtype}"
    return not_finite(given) if given.dtype.kind == "f" else ""


def _holds(wanted: np.dtype, given: np.ndarray) -> bool:
    """Whether an array's numbers are some of a dtype: whole numbers by what they are, others by their own dtype."""
    if wanted.kind not in "biu" or given.dtype.kind not in "biu":
        return np.can_cast(given.dtype, wanted, "same_kind")
    bounds: Any = None if wanted.kind == "b" else np.iinfo(wanted.name)
    low, high = (0, 1) if bounds is None else (bounds.min, bounds.max)
    return not given.size or bool(low <= given.min() and given.max() <= high)


def not_finite(array: np.ndarray) -> str:
    """Where an array of real numbers holds one that is not finite, or nothing."""
    few = array.ndim == 1 and len(array) <= FEW
    if isfinite(sum(array.tolist()) if few else np.vdot(array, array)):  # the fastest sums; NaN and inf stay in them
        return ""
    wrong = np.argwhere(~np.isfinite(array))  # none, where only the squares were too large
    return f"{array[tuple(wrong[0])]} at {wrong[0].tolist()}, which is not finite" if len(wrong) else ""


def without_objects(obs: Any) -> Any:
    """An observation with what lies in arrays of objects, as lists that were put there, in arrays of its own dtype."""
    if isinstance(obs, Mapping):
        return {key: without_objects(inner) for key, inner in obs.items()}
    return _stacked(obs) if isinstance(obs, np.ndarray) and obs.dtype == object else obs


def _words(obs: Any) -> str:
    array = np.asarray(obs) if not isinstance(obs, Mapping) else None
    return f"{type(obs).__name__} of {', '.join(obs)}" if array is None else f"{array.dtype} {array.shape}"
