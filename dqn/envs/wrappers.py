"""One environment of a vector: made, watched, and its observations brought to arrays."""

import importlib
import logging
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from math import isfinite
from types import NoneType
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box

from dqn.envs.answers import STEP, WrongAnswer, number, reset_answer, wrong_answer
from dqn.envs.flat import flattened, odd
from dqn.envs.last_step import LastStep  # noqa: F401  # its name in the runs of earlier versions
from dqn.envs.spaces import FEW, MAX_ACTIONS, Actions, misfit, not_finite, without_objects
from dqn.errors import RunError, UsageError
from dqn.processes import end_with_parent
from dqn.types import EPISODE_INFO, MASK

log = logging.getLogger("dqn")
LARGEST = float(np.finfo(np.float32).max)


class EnvironmentFailure(RunError):
    """An environment raised, or gave what nothing can be learnt from: which one, at which of its steps, and what."""


class Watched(gymnasium.Wrapper):
    """Environment `index` of a vector, with what it answers checked and made alike for vectors.

    An exception says where it happened. What the spaces do not allow, a reward or an observation that is not finite,
    and an answer of another form than Gymnasium's end the run with a sentence. Of the info that a step gives there is
    left: the mask of legal actions [A] bool, where `actions` are given to read it by, and at an episode's end the
    values named in `episode_info`. The last observation of an episode is copied, as Gymnasium's SAME_STEP hands it on
    as it is while the reset may already write into its buffer.
    """

    def __init__(
        self, env: gymnasium.Env, index: int, actions: Actions | None = None, episode_info: Sequence[str] = ()
    ):
        super().__init__(env)
        self.index, self.actions, self.episode_info = index, actions, episode_info
        self.steps, self.space = 0, env.observation_space
        self.cap: int | None = None  # an episode is cut after so many steps, in evaluations
        self.length = 0  # of the running episode
        self.limit = time_limit(env)
        self.usual = (self.space.dtype, self.space.shape)  # what needs no closer look
        self.real = isinstance(self.space, Box) and np.dtype(self.space.dtype).kind == "f"
        self.few = self.real and len(self.space.shape) == 1 and self.space.shape[0] <= FEW  # pyright: ignore[reportOptionalSubscript, reportArgumentType]

    def _broken(self, did: str, what: str) -> EnvironmentFailure:
        name = self.spec.id if self.spec else type(self.unwrapped).__name__
        return EnvironmentFailure(f"environment {self.index} ({name}) {did} at its step {self.steps}: {what}")

    def _failure(self, error: BaseException) -> EnvironmentFailure:
        if wanted := wrong_answer(error):
            return self._broken("answers as no Gymnasium environment does", wanted)
        return self._broken(f"raised {type(error).__name__}", str(error))

    def _checked(self, obs: Any) -> Any:
        if type(obs) is np.ndarray and obs.shape and (obs.dtype, obs.shape) == self.usual:
            if self.few and isfinite(sum(obs.tolist())):  # as `not_finite` begins, without a call
                return obs
            if self.real and (wrong := not_finite(obs)):
                raise self._broken("showed an observation that no network can learn from", wrong)
            return obs
        if misfit(self.space, obs):
            obs = without_objects(obs)
        if wrong := misfit(self.space, obs):
            raise self._broken("showed what its observation space does not hold", wrong)
        return obs

    def _kept(self, info: Any, ended: bool = False) -> dict[str, Any]:
        """What vectors are given of an info: masks alone and the named values, as they would stack what may have any
        shape. A mask becomes an array of its own: a list or one buffer for all masks would be written again."""
        kept: dict[str, Any] = {}
        if not isinstance(info, (Mapping, NoneType)):
            raise self._failure(WrongAnswer(f"{STEP}; its info is {info!r}"))
        if info and self.actions is not None and info.get(MASK) is not None:
            try:
                kept[MASK] = np.array(self.actions.legal_of_one(info[MASK]))
            except ValueError as error:
                raise self._broken("gave an action mask", f"one {error}, or set env.action_mask=none") from error
        if ended and self.episode_info:
            kept[EPISODE_INFO] = np.array([number(info or {}, name) for name in self.episode_info])
        return kept

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        try:
            obs, info = reset_answer(self.env.reset(seed=seed, options=options))
        except (Exception, SystemExit) as error:
            raise self._failure(error) from error
        self.length = 0
        return self._checked(obs), self._kept(info)

    def step(self, action: Any) -> Any:
        self.steps += 1
        self.length += 1
        try:
            obs, reward, terminated, truncated, info = self.env.step(action)
        except (Exception, SystemExit) as error:
            raise self._failure(error) from error
        if self.length == self.cap and not terminated:
            truncated = True
        ended = terminated or truncated
        if ended:
            obs = deepcopy(obs) if isinstance(obs, dict) else np.copy(obs)
        if type(reward) is not float:
            reward = self._one_number(reward)
        if not -LARGEST <= reward <= LARGEST:
            raise self._broken("gave a reward that is not finite, or too large for float32,", repr(reward))
        kept = self._kept(info, bool(ended)) if info or ended else {}
        return self._checked(obs), reward, bool(terminated), bool(truncated), kept

    def _one_number(self, reward: Any) -> float:
        array = np.asarray(reward)
        if array.size != 1 or array.dtype.kind not in "biuf":
            raise self._broken("gave a reward that is no number", repr(array))
        return float(array.item())

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


class Copied(gymnasium.Wrapper):
    """An environment whose observations are copies, for wrappers around it that keep what they are shown, and whose
    resets give what wrappers unpack without a look: (obs, info)."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        obs, info = reset_answer(self.env.reset(seed=seed, options=options))
        return deepcopy(obs), info

    def step(self, action: Any) -> Any:
        obs, *rest = self.env.step(action)
        return deepcopy(obs), *rest


def make_one(
    index: int,
    source: str | EnvSpec,
    imports: Sequence[str],
    kwargs: dict[str, Any],
    limit: int | None,
    wrappers: Mapping[str, Callable[[gymnasium.Env], gymnasium.Env]],
    max_actions: int = MAX_ACTIONS,
    masks: bool = True,
    episode_info: Sequence[str] = (),
) -> gymnasium.Env:
    """Environment `index` of a vector, with every space an array or a Dict of arrays, watched.

    `source` is what envs.passed finds for its id. `masks`: the masks of its info are read; `episode_info` are the
    values of its info that are handed on."""
    end_with_parent()  # where it is made in a process of its own
    id = source if isinstance(source, str) else source.id
    for module in imports:
        importlib.import_module(module)
    try:
        env = gymnasium.make(source, disable_env_checker=True, max_episode_steps=limit, **kwargs)
    except (gymnasium.error.Error, ImportError, TypeError, UsageError):
        raise
    except (Exception, SystemExit) as error:  # its constructor's own
        raise UsageError(f"{id} cannot be made ({type(error).__name__}: {error}): correct it or env.kwargs.") from error
    if wrappers or odd(env.observation_space):
        env = Copied(env)
    for name, wrapper in wrappers.items():
        try:
            env = wrapper(env)
        except (Exception, SystemExit) as error:
            raise UsageError(f"env.wrappers.{name} cannot be put around {id} ({error}).") from error
    actions = Actions(id, env.action_space, max_actions)
    return Watched(flattened(env, id), index, actions if masks else None, episode_info)


def close(env: Any) -> None:
    """Close it; what it raises then is said, and stops nothing."""
    try:
        env.close()
    except (Exception, SystemExit) as error:
        log.warning("An environment raised %s as it was closed: %s", type(error).__name__, error)
