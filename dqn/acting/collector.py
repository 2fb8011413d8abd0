"""The collector: acts in the environments and hands on what happened, a block of rows at a time."""

import logging
from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from dqn.ops.clock import Times
from dqn.protocols import Environments
from dqn.types import Rows, Step

log = logging.getLogger("dqn")
REPLAYABLE = 100_000  # ticks: more actions are not kept for a resume, a synchronisation point comes instead


class Collector:
    """Environments, the actor that acts in them, and the stage where their rows gather.

    `begin(seed)` resets every environment; the actions since then, replayed, bring them back at a resume.
    """

    def __init__(self, envs: Environments, actor: Any, stage: Any):
        self.envs, self.actor, self.stage = envs, actor, stage
        self.num_envs, self.resets = envs.num_envs, envs.mode is AutoresetMode.NEXT_STEP  # else no tick is one
        self.obs = np.zeros(0)
        self.actions: list[np.ndarray] = []  # since the last begin

    @property
    def due(self) -> bool:
        """More actions than these are not kept: it is time to begin anew."""
        return len(self.actions) >= REPLAYABLE

    def collect(self, now: int, times: Times, store: Callable[[Rows], None], seconds: dict[str, float]) -> int:
        """Act and step until anything is due; returns where env_steps stand. Rows go to `store` in blocks."""
        until = times.next_stop(now)
        while now < until:
            now = self.play(now, until, seconds)
            store(self.stage.take(self.obs))
        return now

    def play(self, now: int, until: int, seconds: dict[str, float]) -> int:
        """Act and step until env_steps reach `until` or the stage is full; returns where they stand."""
        spent_act = spent_env = 0.0
        while now < until and not self.stage.full:
            t0 = perf_counter()
            action = self.actor.act(self.obs, now)
            self.stage.record_decision(self.obs, action, self.actor.before)
            t1 = perf_counter()
            step = self.envs.step(action)
            t2 = perf_counter()
            self.stage.record_step(step)
            if self.actor.remembers:
                self.actor.forget(step.begins)
            self.actions.append(action)
            self.obs = step.obs
            now += self.num_envs - (int(np.count_nonzero(step.reset)) if self.resets else 0)
            spent_act, spent_env = spent_act + t1 - t0, spent_env + t2 - t1
        seconds["act"] += spent_act
        seconds["env"] += spent_env
        return now

    def begin(self, seed: int) -> Rows | None:
        """Reset every environment; returns the rows that close what ran before, where something did."""
        last, begun = self.obs, self.obs.size > 0
        self.obs, self.actions = self.envs.reset(seed), []
        everywhere = np.ones(self.num_envs, bool)
        self.actor.forget(everywhere)
        if not begun:
            return None
        self.stage.record_decision(last, np.zeros(self.num_envs, np.int64))
        self.stage.record_step(Step(self.obs, np.zeros(self.num_envs), ~everywhere, ~everywhere, everywhere))
        return self.stage.take(self.obs)

    def close(self) -> None:
        self.envs.close()

    def state(self) -> dict[str, Tensor]:
        actions = np.stack(self.actions) if self.actions else np.zeros((0, self.num_envs), np.int64)
        return {"obs": torch.from_numpy(self.obs), "actions": torch.from_numpy(actions)}

    def load(self, state: dict[str, Tensor]) -> None:
        self.obs, self.actions = state["obs"].numpy(), list(state["actions"].numpy())

    def replay(self, seed: int) -> bool:
        """Bring the environments back to where `load` says they stood; whether they came there."""
        obs = self.envs.reset(seed)
        for action in self.actions:
            obs = self.envs.step(action).obs
        return np.array_equal(obs, self.obs, equal_nan=self.obs.dtype.kind == "f")
