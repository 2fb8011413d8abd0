"""One environment of a vector: made, watched, and its observations brought to arrays."""

import importlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict

from dqn.envs.flat import flattened
from dqn.envs.spaces import MASK, misfit
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
        self.usual = (self.space.dtype, self.space.shape)  # what needs no closer look

    def _failure(self, error: Exception) -> EnvironmentFailure:
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
        except Exception as error:
            raise self._failure(error) from error
        return self._checked(obs), _mask_alone(info)

    def step(self, action: Any) -> Any:
        self.steps += 1
        try:
            obs, reward, terminated, truncated, info = self.env.step(action)
        except Exception as error:
            raise self._failure(error) from error
        if terminated or truncated:
            obs = deepcopy(obs) if isinstance(obs, dict) else np.copy(obs)
        if type(reward) is not float:
            reward = np.asarray(reward)
            if reward.size != 1 or reward.dtype.kind not in "biuf":
                raise self._broken("gave a reward that is no number", repr(reward))
            reward = reward.item()
        return self._checked(obs), float(reward), bool(terminated), bool(truncated), _mask_alone(info)


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
    cap: int | None,
    wrappers: Mapping[str, Callable[[gymnasium.Env], gymnasium.Env]],
) -> gymnasium.Env:
    """Environment `index` of a vector, with every space an array or a Dict of arrays, watched."""
    for module in imports:
        importlib.import_module(module)
    try:
        env = gymnasium.make(id, disable_env_checker=True, max_episode_steps=limit, **kwargs)
    except (gymnasium.error.Error, ImportError, TypeError):
        raise
    except Exception as error:  # its constructor's own
        raise UsageError(f"{id} cannot be made ({type(error).__name__}: {error}): correct it or env.kwargs.") from error
    if wrappers:  # they may keep what they are shown, and an environment may write into it again
        env = gymnasium.wrappers.TransformObservation(env, deepcopy, env.observation_space)
    for name, wrapper in wrappers.items():
        try:
            env = wrapper(env)
        except Exception as error:
            raise UsageError(f"env.wrappers.{name} cannot be put around {id} ({error}).") from error
    if cap is not None:
        env = gymnasium.wrappers.TimeLimit(env, cap)
    return Watched(flattened(env, id), index)


def first_info(one: Any) -> dict[str, Any]:
    """What an environment tells at a reset: one of its own is asked, so that none that plays is disturbed."""
    env = one(0)
    try:
        return env.reset(seed=0)[1]
    finally:
        close(env)


def close(env: Any) -> None:
    """Close it; what it raises then is said, and stops nothing."""
    try:
        env.close()
    except Exception as error:
        log.warning("An environment raised %s as it was closed: %s", type(error).__name__, error)


@contextmanager
def deaf() -> Iterator[None]:
    """What is started here never hears Ctrl-C or SIGTERM, which reach every process of a terminal: the run decides."""
    if threading.current_thread() is not threading.main_thread():  # handlers are the main thread's
        yield
        return
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
