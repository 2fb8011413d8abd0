"""Any Gymnasium environments behind one adapter: the three autoreset modes come out as `Step`s."""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from dqn.envs.interface import Interface
from dqn.envs.spaces import MAX_ACTIONS, Actions, mask_path, replaced
from dqn.envs.wrappers import EnvironmentFailure, close
from dqn.errors import UsageError
from dqn.types import EPISODE_INFO, MASK, Step


class GymEnvs:
    """E environments as one: `reset(seed) → obs`, `step(action) → Step`, whatever the autoreset mode behind.

    Whether there are action masks is asked by a reset, unless `action_mask` is `none`: a second environment, which only
    would be asked, could not be made where just one can exist. `limit` is after how many steps an episode is cut, None
    where it is not known to be. At most `max_actions` combinations of actions are taken. `episode_info` are the names
    of the values that their info tells where an episode ends. Errors: UsageError for spaces DQN cannot use.
    """

    def __init__(
        self, envs: VectorEnv, action_mask: str = "none", id: str | None = None, max_actions: int = MAX_ACTIONS,
        episode_info: Sequence[str] = (),
    ):  # fmt: skip
        self.envs, self.num_envs, self.episode_info = envs, envs.num_envs, tuple(episode_info)
        self.id = id or (envs.spec.id if envs.spec else _inner_id(envs))
        mode = envs.metadata.get("autoreset_mode")
        if not isinstance(mode, AutoresetMode):
            raise UsageError(
                f"{self.id} does not say how it resets: set metadata['autoreset_mode'] of its vector class to an "
                "AutoresetMode."
            )
        self.mode, space = mode, envs.single_observation_space
        self.broken, self.closed, self._done = False, False, np.zeros(self.num_envs, bool)
        self._none, self._all = np.zeros(self.num_envs, bool), np.ones(self.num_envs, bool)
        actions = Actions(self.id, envs.single_action_space, max_actions)
        own = action_mask != "none" and mask_path(self.id, space, actions) is not None
        given = action_mask != "none" and (own or self._reset(0)[1].get(MASK) is not None)
        if action_mask == "required" and not given:
            raise UsageError(
                f"env.action_mask=required but {self.id} gives no info['action_mask'] at a reset, and no entry "
                "`action_mask` of a Dict observation: give one there and at every step, or set env.action_mask=auto."
            )
        self.masked, self.silent, self.max_actions = given, action_mask == "none", max_actions
        self.interface = Interface(self.id, space, envs.single_action_space, self.masked, max_actions)
        self.actions, self.observations, self.spec = (
            self.interface.actions, self.interface.observations, self.interface.spec,
        )  # fmt: skip
        # Of one of Gymnasium's own classes, each environment is made by envs.wrappers.
        self.watched = envs if isinstance(envs, (SyncVectorEnv, AsyncVectorEnv)) else None
        if self.watched is not None:
            self.limit = self.watched.get_attr("limit")[0]
        else:
            self.limit = envs.spec.max_episode_steps if envs.spec else None

    def set_cap(self, cap: int | None) -> None:
        """Cut every episode that begins from now on after `cap` steps, or none; a vector class of its own cannot."""
        if self.watched is not None:
            self.watched.set_attr("cap", [cap] * self.num_envs)

    def _reset(self, seed: int) -> tuple[Any, Mapping[str, Any]]:
        try:
            return self.envs.reset(seed=seed)
        except BaseException as error:
            self._break(error)
            raise

    def _see(self, obs: Any, info: Mapping[str, Any], rows: np.ndarray, over: np.ndarray) -> np.ndarray:
        """What is seen [E, ...]. Masks count in `rows` [E] only; where an episode is `over` [E] nothing is decided."""
        return self.observations.read(obs, self._legal(obs, info, rows, over) if self.masked else None)

    def _legal(self, obs: Any, info: Mapping[str, Any], rows: np.ndarray, over: np.ndarray) -> np.ndarray:
        """The legal actions [E, A] bool; all of them where nothing is said and nothing is decided."""
        own = self.observations.own_mask is not None
        given = self.observations.mask_of(obs) if own else info.get(MASK)
        there = rows & np.asarray(own or info.get(f"_{MASK}", given is not None), bool)
        mask = np.ones((self.num_envs, self.actions.n), bool)
        if there.any():
            try:
                mask[there] = self.actions.legal(np.asarray(given)[there])
            except ValueError as error:
                raise EnvironmentFailure(
                    f"{self.id} gave an action mask {error}, or set env.action_mask=none"
                ) from error
        blocked = ~mask.any(1)
        lost = "gave no info['action_mask']"
        for wrong, says in ((rows & ~there, lost), (blocked, "has no legal action")):
            if (wrong & ~over).any():
                raise EnvironmentFailure(
                    f"environment {(wrong & ~over).argmax()} ({self.id}) {says} at a reset or step that is not the end "
                    "of an episode: give a mask with at least one legal action, or set env.action_mask=none"
                )
        mask[blocked] = True
        return mask

    def _break(self, error: BaseException) -> None:
        """What was asked of the environments may never be answered: `close` is not to wait for it."""
        self.broken = True
        if isinstance(error, (EOFError, BrokenPipeError, ConnectionResetError)):
            raise EnvironmentFailure(f"a process of {self.id} died (killed, or out of memory?)") from error
        if isinstance(error, SystemExit):  # of a vector class of its own: it would end the run as if all were well
            raise EnvironmentFailure(f"{self.id} raised SystemExit({error.code})") from error

    def _no_surprise(self, info: Mapping[str, Any]) -> None:
        if MASK in info and not self.masked and not self.silent:
            raise EnvironmentFailure(
                f"{self.id} gave an info['action_mask'] at a step and none at its first reset: give one there too, or "
                "set env.action_mask=none"
            )

    def reset(self, seed: int) -> np.ndarray:
        """Begin every environment anew; environment e is seeded with seed + e."""
        obs, info = self._reset(seed)
        self._done = self._none
        return self._see(obs, info, self._all, self._none)

    def step(self, action: np.ndarray) -> Step:
        """One tick of all environments: action [E] int64 → Step. Errors: EnvironmentFailure for a missing mask."""
        try:
            shown, reward, terminated, truncated, info = self.envs.step(self.actions(action))
        except BaseException as error:
            self._break(error)
            raise
        self._no_surprise(info)
        terminated, truncated = np.asarray(terminated, bool), np.asarray(truncated, bool)
        done = terminated | truncated
        over = self._none if self.mode is AutoresetMode.SAME_STEP else terminated
        obs, final = self._see(shown, info, self._all, over), None
        episode_info = self._episode_info(info) if self.episode_info and done.any() else None
        if self.mode is AutoresetMode.NEXT_STEP:
            was, self._done = self._done, done
            return Step(obs, reward, terminated, truncated, was, episode_info=episode_info)
        if done.any() and self.mode is AutoresetMode.DISABLED:
            final = np.array(obs)
            try:
                shown, info = self.envs.reset(options={"reset_mask": done})
            except BaseException as error:
                self._break(error)
                raise
            begun = self._see(shown, info, done, self._none)
            obs = np.where(done.reshape(-1, *[1] * (obs.ndim - 1)), begun, final)
        elif done.any():
            if "final_obs" not in info:
                raise EnvironmentFailure(
                    f"the vector class of {self.id} resets in the same step and gives no final_obs"
                )
            last = {int(e): _row(info["final_obs"], int(e)) for e in done.nonzero()[0]}
            final = self._see(replaced(shown, last), info.get("final_info", {}), done, terminated)
        return Step(obs, reward, terminated, truncated, self._none, final, episode_info)

    def _episode_info(self, info: Mapping[str, Any]) -> np.ndarray | None:
        """The values [E, I] that were told where an episode ended, as envs.wrappers and envs.vector put them there."""
        ends = info.get("final_info")
        return (ends if isinstance(ends, Mapping) else info).get(EPISODE_INFO)

    def optimal_q(self, gamma: float) -> np.ndarray | None:
        """Q* [S, A] where the world knows it (a method `optimal_q(gamma)` of its environment), else None."""
        known = getattr(self._first, "optimal_q", None)
        return known(gamma) if known is not None and gamma < 1 else None

    @property
    def _first(self) -> Any:
        return getattr(self.envs, "envs", [self.envs])[0].unwrapped

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        if self.broken and isinstance(self.envs, AsyncVectorEnv):  # it would wait for what never comes
            for process in self.envs.processes:
                process.kill()
                process.join(5)
            with suppress(Exception), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Gymnasium's, that a step is not complete
                self.envs.close(terminate=True)
            self.envs.closed = True
            return
        close(self.envs)


def _row(obs: Any, e: int) -> Any:
    return {key: _row(inner, e) for key, inner in obs.items()} if isinstance(obs, Mapping) else obs[e]


def _inner_id(envs: VectorEnv) -> str:
    inner = getattr(envs, "envs", None)
    return inner[0].spec.id if inner and inner[0].spec else type(envs.unwrapped).__name__
