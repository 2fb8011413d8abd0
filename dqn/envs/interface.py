"""What an agent needs to know of an environment to act in it: its spaces, which a run keeps in its directory.

With them an agent can be loaded where the environment's package is not installed.
"""

from collections import OrderedDict
from math import inf
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space

from dqn.envs.spaces import Actions, Observations
from dqn.errors import UsageError


class Interface:
    """Observations as the network reads them, numbered actions as the environment takes them.

    `masked`: legal actions are a part of what is observed. At most `most` combinations of actions are taken.
    Errors: UsageError for spaces that DQN cannot use.
    """

    def __init__(self, id: str, observation_space: Space, action_space: Space, masked: bool, most: float = inf):
        self.id, self.masked = id, masked
        self.observation_space, self.action_space = observation_space, action_space
        self.actions = Actions(id, action_space, most)
        self.observations = Observations(id, observation_space, self.actions, masked)
        self.spec = self.observations.spec

    def plain(self) -> dict[str, Any]:
        """As values that JSON can hold."""
        return {
            "id": self.id,
            "observation_space": _plain(self.observation_space),
            "action_space": _plain(self.action_space),
            "masked": self.masked,
        }

    @classmethod
    def of(cls, plain: Any) -> "Interface":
        """What `plain` gave. Errors: ValueError, KeyError or TypeError for anything else."""
        spaces = _space(plain["observation_space"]), _space(plain["action_space"])
        return cls(str(plain["id"]), *spaces, bool(plain["masked"]))


def _plain(space: Space) -> dict[str, Any]:
    if isinstance(space, Box):
        ends = {"low": _shortest(space.low), "high": _shortest(space.high)}
        return {"kind": "Box", **ends, "shape": list(space.shape), "dtype": str(space.dtype)}
    if isinstance(space, Discrete):
        return {"kind": "Discrete", "n": int(space.n), "start": int(space.start), "dtype": str(space.dtype)}
    if isinstance(space, MultiBinary):
        return {"kind": "MultiBinary", "n": list(space.shape)}
    if isinstance(space, MultiDiscrete):
        numbers = {"nvec": space.nvec.tolist(), "start": np.asarray(space.start).tolist()}
        return {"kind": "MultiDiscrete", **numbers, "dtype": str(space.dtype)}
    if isinstance(space, Dict):
        return {"kind": "Dict", "spaces": {str(key): _plain(inner) for key, inner in space.items()}}
    raise UsageError(f"A space of kind {type(space).__name__} cannot be kept: wrap the environment to show arrays.")


def _shortest(bounds: np.ndarray) -> Any:
    """One number where all are equal."""
    return bounds.ravel()[0].item() if bounds.size and (bounds == bounds.ravel()[0]).all() else bounds.tolist()


def _space(plain: Any) -> Space:
    kind = plain["kind"]
    if kind == "Box":
        shape, dtype = tuple(map(int, plain["shape"])), np.dtype(plain["dtype"])
        low, high = (np.broadcast_to(np.asarray(plain[end], dtype), shape) for end in ("low", "high"))
        return Box(low, high, shape, dtype.type)
    if kind == "Discrete":
        dtype = np.dtype(plain["dtype"])
        more: Any = {} if dtype == np.int64 else {"dtype": dtype.type}  # older versions of Gymnasium take none
        return Discrete(int(plain["n"]), start=int(plain["start"]), **more)
    if kind == "MultiBinary":
        return MultiBinary([*map(int, plain["n"])])
    if kind == "MultiDiscrete":
        return MultiDiscrete(
            np.array(plain["nvec"]), dtype=np.dtype(plain["dtype"]).type, start=np.array(plain["start"])
        )
    if kind == "Dict":
        return Dict(OrderedDict((key, _space(inner)) for key, inner in plain["spaces"].items()))  # in this very order
    raise ValueError(f"{kind!r} is no kind of space")
