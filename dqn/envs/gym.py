"""Any Gymnasium environment, one or many, behind one adapter: the three autoreset modes come out as `Step`s."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from dqn.types import RunError, Spec, Step, UsageError

VECTORIZATIONS = ("sync", "async", "vector_entry_point")


class EnvironmentFailure(RunError):
    """An environment raised: which one, at which of its steps, and what it said."""


class Watched(gymnasium.Wrapper):
    """Lets an exception of environment `index` say where it happened, and copies an episode's last observation,
    which Gymnasium's SAME_STEP hands on as it is while the reset may already write into its buffer."""

    def __init__(self, env: gymnasium.Env, index: int):
        super().__init__(env)
        self.index, self.steps = index, 0

    def _failure(self, error: Exception) -> EnvironmentFailure:
        name = self.spec.id if self.spec else type(self.unwrapped).__name__
        return EnvironmentFailure(
            f"environment {self.index} ({name}) raised {type(error).__name__} at its step {self.steps}: {error}"
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        try:
            return self.env.reset(seed=seed, options=options)
        except Exception as error:
            raise self._failure(error) from error

    def step(self, action: Any) -> Any:
        self.steps += 1
        try:
            obs, reward, terminated, truncated, info = self.env.step(action)
        except Exception as error:
            raise self._failure(error) from error
        if terminated or truncated:
            obs = np.copy(obs)
        return obs, reward, terminated, truncated, info


def _make_one(
    index: int, id: str, imports: Sequence[str], kwargs: dict[str, Any], limit: int | None, cap: int | None
) -> gymnasium.Env:
    for module in imports:
        importlib.import_module(module)
    env = gymnasium.make(id, disable_env_checker=True, max_episode_steps=limit, **kwargs)
    if cap is not None:
        env = gymnasium.wrappers.TimeLimit(env, cap)
    if not isinstance(env.observation_space, (Box, Discrete)):  # Tuple, Dict, MultiDiscrete … as one vector
        env = gymnasium.wrappers.FlattenObservation(env)
    return Watched(env, index)


def make(
    id: str,
    num_envs: int = 1,
    vectorization: str = "sync",
    autoreset: str = "same_step",
    imports: Sequence[str] = (),
    kwargs: dict[str, Any] | None = None,
    max_episode_steps: int | None = None,
    step_cap: int | None = None,
) -> GymEnvs:
    """`num_envs` copies of the Gymnasium environment `id`; `imports` names the packages that register it.

    `vectorization`: `sync` (one process), `async` (a process each) or `vector_entry_point` (the environment's own
    vector class). `autoreset`: `next_step`, `same_step` or `disabled`; an environment's own vector class brings its
    own. `max_episode_steps` replaces the environment's own time limit; `step_cap` is one more, beyond it (evaluation).
    Errors: UsageError, one sentence, for an unknown environment, a missing package or spaces DQN cannot use.
    """
    if num_envs < 1:
        raise UsageError(f"env.num_envs must be ≥ 1, got {num_envs}.")
    if vectorization not in VECTORIZATIONS:
        raise UsageError(f"env.vectorization must be one of {', '.join(VECTORIZATIONS)}, got {vectorization!r}.")
    try:
        mode = AutoresetMode[autoreset.upper()]
    except KeyError:
        raise UsageError(f"env.autoreset must be next_step, same_step or disabled, got {autoreset!r}.") from None
    kwargs = dict(kwargs or {})
    one = partial(_make_one, id=id, imports=imports, kwargs=kwargs, limit=max_episode_steps, cap=step_cap)
    try:
        if vectorization == "vector_entry_point":
            for module in imports:
                importlib.import_module(module)
            limit = {} if max_episode_steps is None else {"max_episode_steps": max_episode_steps}
            return GymEnvs(gymnasium.make_vec(id, num_envs, vectorization_mode=vectorization, **limit, **kwargs))
        makers = [partial(one, index) for index in range(num_envs)]
        if vectorization == "async":  # spawn: a forked child of a threaded torch may hang
            return GymEnvs(AsyncVectorEnv(makers, autoreset_mode=mode, context="spawn"))
        return GymEnvs(SyncVectorEnv(makers, autoreset_mode=mode))
    except gymnasium.error.DependencyNotInstalled as error:
        raise UsageError(f"{id} needs a package that is not installed: {_first_line(error)}.") from error
    except ImportError as error:
        raise UsageError(
            f"{id} cannot be imported ({_first_line(error)}): install its package or correct env.imports."
        ) from error
    except gymnasium.error.Error as error:
        raise UsageError(
            f"env.id={id} cannot be made ({_first_line(error)}); if a package registers it, "
            "name it with env.imports=[package]."
        ) from error
    except TypeError as error:
        raise UsageError(f"env.id={id} cannot be made with env.kwargs={kwargs} ({_first_line(error)}).") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _spec(id: str, observation: gymnasium.Space, action: gymnasium.Space) -> Spec:
    if not isinstance(action, Discrete):
        kind = "continuous" if isinstance(action, Box) else type(action).__name__
        raise UsageError(
            f"{id} has {kind} actions ({action}); Q-learning picks among numbered ones: choose an environment with a "
            "Discrete action space, or wrap this one to make its actions discrete."
        )
    actions = int(action.n)
    if isinstance(observation, Discrete):
        return Spec((), np.dtype(np.int64), actions, int(observation.n))
    if not isinstance(observation, Box):
        raise UsageError(
            f"{id} has observations of kind {type(observation).__name__}; use env.vectorization=sync, "
            "which flattens them to a vector."
        )
    shape, dtype = tuple(observation.shape), np.dtype(observation.dtype)
    if dtype.kind == "f" and len(shape) >= 3:
        raise UsageError(
            f"{id} shows images of {dtype} {shape}; give them as uint8 in 0…255 (a quarter of the memory): "
            "wrap the environment."
        )
    if dtype != np.uint8:
        dtype = np.dtype(np.float64 if torch.get_default_dtype() == torch.float64 else np.float32)
    return Spec(shape, dtype, actions)


class GymEnvs:
    """E environments as one: `reset(seed) → obs`, `step(action) → Step`, whatever the autoreset mode behind."""

    def __init__(self, envs: VectorEnv):
        self.envs, self.num_envs = envs, envs.num_envs
        self.id = envs.spec.id if envs.spec else _inner_id(envs)
        mode = envs.metadata.get("autoreset_mode")
        if not isinstance(mode, AutoresetMode):
            raise UsageError(
                f"{self.id} does not say how it resets: set metadata['autoreset_mode'] of its vector class to an "
                "AutoresetMode."
            )
        self.mode = mode
        observation, action = envs.single_observation_space, envs.single_action_space
        self.spec = _spec(self.id, observation, action)
        self._first_state = int(observation.start) if isinstance(observation, Discrete) else 0
        self._first_action = int(action.start) if isinstance(action, Discrete) else 0
        self._done = np.zeros(self.num_envs, bool)
        self._never = np.zeros(self.num_envs, bool)

    def _obs(self, obs: Any) -> np.ndarray:
        obs = np.asarray(obs, self.spec.obs_dtype)
        return obs - self._first_state if self._first_state else obs

    def reset(self, seed: int) -> np.ndarray:
        """Begin every environment anew; environment e is seeded with seed + e."""
        obs, _ = self.envs.reset(seed=seed)
        self._done = np.zeros(self.num_envs, bool)
        return self._obs(obs)

    def step(self, action: np.ndarray) -> Step:
        """One tick of all environments: action [E] int64 → Step."""
        obs, reward, terminated, truncated, info = self.envs.step(action + self._first_action)
        done = terminated | truncated
        if self.mode is AutoresetMode.NEXT_STEP:
            was, self._done = self._done, done
            return Step(self._obs(obs), reward, terminated, truncated, was)
        obs, final = self._obs(obs), None
        if done.any():
            final = np.array(obs)
            if self.mode is AutoresetMode.DISABLED:
                begun, _ = self.envs.reset(options={"reset_mask": done})
                obs = np.where(done.reshape(-1, *[1] * (obs.ndim - 1)), self._obs(begun), final)
            else:
                for e in done.nonzero()[0]:
                    final[e] = self._obs(info["final_obs"][e])
        return Step(obs, reward, terminated, truncated, self._never, final)

    def optimal_q(self, gamma: float) -> np.ndarray | None:
        """Q* [S, A] where the world knows it (a method `optimal_q(gamma)` of its environment), else None."""
        first = getattr(self.envs, "envs", [self.envs])[0].unwrapped
        known = getattr(first, "optimal_q", None)
        return known(gamma) if known is not None and gamma < 1 else None

    def close(self) -> None:
        self.envs.close()


def _inner_id(envs: VectorEnv) -> str:
    inner = getattr(envs, "envs", None)
    return inner[0].spec.id if inner and inner[0].spec else type(envs).__name__
