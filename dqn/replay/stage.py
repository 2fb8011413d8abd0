"""The stage: rows gathered in plain arrays and handed to the ring a block at a time."""

from collections.abc import Callable

import numpy as np
import torch

from dqn.types import Rows, Spec, Step


class Stage:
    """Room for `ticks` ticks of E environments. Every value is copied in, so an environment may reuse its buffers.

    For each tick: `record_decision(obs, action)` before the environment steps, `record_step(step)` after it.
    `state_size` is the width of what the network's core remembers, 0 without one; `episode_info` is how many values of
    the info are noted where an episode ends. `zeros(shape, dtype)` gives the memory. The last observation of an episode
    after which the next has begun gets a row of its own, as in the ring, where there is one environment; of many it
    lies beside their rows (`splits`), or they would not stay in step.
    """

    def __init__(
        self, spec: Spec, num_envs: int, ticks: int, state_size: int = 0, zeros: Callable[..., np.ndarray] = np.zeros,
        episode_info: int = 0,
    ):  # fmt: skip
        self.alone = num_envs == 1
        shape = (ticks + self.alone, num_envs)
        real = np.float64 if torch.get_default_dtype() == torch.float64 else np.float32
        self.obs = zeros((shape[0] + 1, num_envs, *spec.obs_shape), spec.obs_dtype)
        self.final_obs = zeros((0 if self.alone else ticks, num_envs, *spec.obs_shape), spec.obs_dtype)
        self.action, self.reward = zeros(shape, np.int64), zeros(shape, real)
        self.terminated, self.truncated, self.reset, self.splits = (zeros(shape, bool) for _ in range(4))
        self.core = zeros((*shape, state_size), real) if state_size else None
        self.episode_info = zeros((*shape, episode_info), np.float64) if episode_info else None
        if self.episode_info is not None:
            self.episode_info.fill(np.nan)
        self.ticks, self.used = ticks, 0

    @property
    def full(self) -> bool:
        return self.used >= self.ticks

    def record_decision(self, obs: np.ndarray, action: np.ndarray, core: torch.Tensor | None = None) -> None:
        self.obs[self.used] = obs
        self.action[self.used] = action
        if self.core is not None and core is not None:
            self.core[self.used] = core.numpy(force=True)

    def record_step(self, step: Step) -> None:
        t = self.used
        self.reward[t] = step.reward
        self.terminated[t] = step.terminated
        self.truncated[t] = step.truncated
        self.reset[t] = step.reset
        if self.episode_info is not None:
            self.episode_info[t] = np.nan if step.episode_info is None else step.episode_info
        self.used = t + 1
        if step.final_obs is None:
            self.splits[t] = False
        elif self.alone:
            nothing = np.zeros(1, bool)
            self.record_decision(step.final_obs, np.zeros(1, np.int64))
            if self.core is not None:
                self.core[t + 1] = 0.0
            self.record_step(Step(step.obs, np.zeros(1), nothing, nothing, ~nothing))
        else:
            self.final_obs[t], self.splits[t] = step.final_obs, step.terminated | step.truncated

    def take(self, obs: np.ndarray) -> Rows:
        """The rows so far as views, closed by what is seen now; the stage is empty afterwards."""
        k, self.used = self.used, 0
        self.obs[k] = obs
        return self.rows(k)

    def rows(self, k: int) -> Rows:
        """The first k rows as views."""
        rows = Rows(
            self.obs[: k + 1],
            self.action[:k],
            self.reward[:k],
            self.terminated[:k],
            self.truncated[:k],
            self.reset[:k],
            core=None if self.core is None else self.core[:k],
            episode_info=None if self.episode_info is None else self.episode_info[:k],
        )
        if self.splits[:k].any():
            rows.final_obs, rows.splits = self.final_obs[:k], self.splits[:k]
        return rows
