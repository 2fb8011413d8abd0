"""One environment of a vector: made, watched, and its observations brought to arrays."""

import importlib
import logging
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict

from dqn.envs.flat import flattened
from dqn.envs.spaces import MASK, misfit
from dqn.processes import end_with_parent
from dqn.types import OBSERVATION, RunError, UsageError

log = logging.getLogger("dqn")


class EnvironmentFailure(RunError):
    """An environment raised: which one, at which of its steps, and what it said."""


class Watched(gymnasium.Wrapper):
    """Lets an exception of environment `index` say where it happened, refuses what its spaces do not allow, hands on
    masks alone of what it tells beside, and copies an episode's last observation, which Gymnasium's SAME_STEP hands on
    as it is while the reset may already write into its buffer."""

    def __init__(self, env: gymnasium.Env, index: int):
        super().__init__(env)
        self.index, self.steps, self.space = index, 0, env.observation_space
        self.cap: int | None = None  # an episode is cut after so many steps, in evaluations
        self.length = 0  # of the running episode
        self.limit = time_limit(env)
        self.usual = (self.space.dtype, self.space.shape)  # what needs no closer look

    def _failure(self, error: BaseException) -> EnvironmentFailure:
        return self._broken(f"raised {type(error).__name__}", str(error))

    def _broken(self, did: str, what: str) -> EnvironmentFailure:
        name = self.spec.id if self.spec else type(self.unwrapped).__name__
        return EnvironmentFailure(f"environment {self.index} ({name}) {did} at its step {self.steps}: {what}")

    def _checked(self, obs: Any) -> Any:
        if type(obs) is np.ndarray and obs.shape and (obs.dtype, obs.shape) == self.usual:
            return obs
        if wrong := misfit(self.space, obs):
            raise self._broken("showed what its observation space does not hold", wrong)
        return obs

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        try:
            obs, info = self.env.reset(seed=seed, options=options)
        except (Exception, SystemExit) as error:
            raise self._failure(error) from error
        self.length = 0
        return self._checked(obs), _mask_alone(info)

    def step(self, action: Any) -> Any:
        self.steps += 1
        self.length += 1
        try:
            obs, reward, terminated, truncated, info = self.env.step(action)
        except (Exception, SystemExit) as error:
            raise self._failure(error) from error
        if self.length == self.cap and not terminated:
            truncated = True
        if terminated or truncated:
            obs = deepcopy(obs) if isinstance(obs, dict) else np.copy(obs)
        if type(reward) is not float:
            reward = np.asarray(reward)
            if reward.size != 1 or reward.dtype.kind not in "biuf":
                raise self._broken("gave a reward that is no number", repr(reward))
            reward = reward.item()
        return self._checked(obs), float(reward), bool(terminated), bool(truncated), _mask_alone(info)

    def close(self) -> None:
        """Close the environment; what it raises then is said, and stops nothing."""
        close(self.env)


def time_limit(env: gymnasium.Env) -> int | None:
    """After how many steps the environment cuts an episode itself, where it does."""
    limits = []
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, gymnasium.wrappers.TimeLimit):
            limits.append(int(env._max_episode_steps))
        env = env.env
    return min(limits, default=None)


def _mask_alone(info: Any) -> dict[str, Any]:
    """The mask as an array of its own, as a list or one buffer for all would be written again; of the rest nothing, as
    vectors would stack what may have any shape."""
    return {MASK: np.array(info[MASK])} if info and info.get(MASK) is not None else {}


class LastStep(gymnasium.Wrapper):
    """Shows the action and the reward that led here beside what is seen, as R2D2's core is told them: a Dict with
    `last_action` (one-hot; flattened where it is no number) and `last_reward` [1], both 0 at the start of an episode.

    Source: Kapturowski et al. (2019), Recurrent Experience Replay in Distributed Reinforcement Learning, appendix.
    """

    def __init__(self, env: gymnasium.Env):
        super().__init__(env)
        space, self.taken = env.observation_space, cast(Box, gymnasium.spaces.flatten_space(env.action_space))
        own = space.spaces if isinstance(space, Dict) else {OBSERVATION: space}
        reward = Box(-np.inf, np.inf, (1,), np.float32)
        self.observation_space = Dict({**own, "last_action": self.taken, "last_reward": reward})

    def _shown(self, obs: Any, action: np.ndarray, reward: Any) -> dict[str, Any]:
        own = obs if isinstance(obs, dict) else {OBSERVATION: obs}
        return {**own, "last_action": action, "last_reward": np.array([reward], np.float32)}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        obs, info = self.env.reset(seed=seed, options=options)
        return self._shown(obs, np.zeros(self.taken.shape, self.taken.dtype), 0.0), info

    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = self.env.step(action)
        taken = gymnasium.spaces.flatten(self.env.action_space, action)
        return self._shown(obs, taken, reward), reward, terminated, truncated, info  # type: ignore[arg-type]


def make_one(
    index: int,
    id: str,
    imports: Sequence[str],
    kwargs: dict[str, Any],
    limit: int | None,
    wrappers: Mapping[str, Callable[[gymnasium.Env], gymnasium.Env]],
) -> gymnasium.Env:
    """Environment `index` of a vector, with every space an array or a Dict of arrays, watched."""
    end_with_parent()  # where it is made in a process of its own
    for module in imports:
        importlib.import_module(module)
    try:
        env = gymnasium.make(id, disable_env_checker=True, max_episode_steps=limit, **kwargs)
    except (gymnasium.error.Error, ImportError, TypeError):
        raise
    except (Exception, SystemExit) as error:  # its constructor's own
        raise UsageError(f"{id} cannot be made ({type(error).__name__}: {error}): correct it or env.kwargs.") from error
    if wrappers:  # they may keep what they are shown, and an environment may write into it again
        env = gymnasium.wrappers.TransformObservation(env, deepcopy, env.observation_space)
    for name, wrapper in wrappers.items():
        try:
            env = wrapper(env)
        except (Exception, SystemExit) as error:
            raise UsageError(f"env.wrappers.{name} cannot be put around {id} ({error}).") from error
    return Watched(flattened(env, id), index)


def close(env: Any) -> None:
    """Close it; what it raises then is said, and stops nothing."""
    try:
        env.close()
    except (Exception, SystemExit) as error:
        log.warning("An environment raised %s as it was closed: %s", type(error).__name__, error)
