"""Observations that are no arrays as vectors, where they have a fixed number of values."""

from functools import partial
from typing import Any

import gymnasium
from gymnasium.spaces import Box, Dict, MultiBinary, MultiDiscrete, Space

from dqn.envs.spaces import ARRAYS, Path, leaves
from dqn.errors import UsageError
from dqn.types import MASK


def odd(space: Space) -> dict[Path, Space]:
    """The spaces in `space`, by path, that are no arrays."""
    return {path: leaf for path, leaf in leaves(space) if not isinstance(leaf, ARRAYS)}


def flattened(env: gymnasium.Env, id: str) -> gymnasium.Env:
    """`env` with every space that is no array (Tuple, MultiDiscrete, …) as a vector, whole or as an entry of a Dict.

    Errors: UsageError where there is no such vector: text of a kind of its own, sequences, graphs.
    """
    space = env.observation_space
    if not (strange := odd(space)):
        return env
    for path, leaf in strange.items():
        if not _has_vector(leaf):
            name = f"entry `{'.'.join(path)}`" if path else "observation"
            raise UsageError(f"{id} shows an {name}, of kind {type(leaf).__name__}, {_no_vector(space)}")
    return gymnasium.wrappers.TransformObservation(env, partial(_flat, space), _flat_space(space))


def _has_vector(space: Space) -> bool:
    try:
        return isinstance(gymnasium.spaces.flatten_space(space), Box)
    except NotImplementedError:
        return False


def _no_vector(space: Space) -> str:
    says = "which has no fixed number of values: wrap the environment"
    fit = [
        str(key) for key, inner in (space.items() if isinstance(space, Dict) else ())
        if all(isinstance(leaf, ARRAYS) or _has_vector(leaf) for _, leaf in leaves(inner))
    ]  # fmt: skip
    if not fit:
        return f"{says} to show arrays."
    wrapper = f"{{_target_: gymnasium.wrappers.FilterObservation, filter_keys: [{', '.join(fit)}]}}"
    return f"{says} to show arrays, or only its others, '+env.wrappers.shown={wrapper}'."


def _is_mask(key: str, space: Space) -> bool:
    """A mask of legal actions as a MultiDiscrete of twos: its numbers are 0 and 1 as they are."""
    return key == MASK and isinstance(space, MultiDiscrete) and bool((space.nvec == 2).all())


def _flat_space(space: Space, key: str = "") -> Space:
    if isinstance(space, Dict):
        return Dict({key: _flat_space(inner, key) for key, inner in space.items()})
    if _is_mask(key, space):
        return MultiBinary(space.shape)  # pyright: ignore[reportArgumentType]  # a MultiDiscrete has one
    return space if isinstance(space, ARRAYS) else gymnasium.spaces.flatten_space(space)


def _flat(space: Space, obs: Any, key: str = "") -> Any:
    if isinstance(space, Dict):
        return {key: _flat(inner, obs[key], key) for key, inner in space.items()}
    return obs if isinstance(space, ARRAYS) or _is_mask(key, space) else gymnasium.spaces.flatten(space, obs)
