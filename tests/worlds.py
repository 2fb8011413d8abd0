"""Worlds made to show faults: each answer they give says which environment, episode and step it belongs to."""

import os
from typing import ClassVar

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete


class Counting(gymnasium.Env):
    """Sees [tag, episode, step]; the reward is step + 1; episode i lasts lengths[i % len] steps.

    `tag` is the environment's seed mod 1000 (neighbours differ). All that is played is noted in PLAYED.
    """

    PLAYED: ClassVar[list[tuple]] = []
    observation_space = Box(-np.inf, np.inf, (3,), np.float64)
    action_space = Discrete(3)

    def __init__(self, lengths=(3,), ending="terminated"):
        self.lengths, self.ending = tuple(lengths), ending
        self.tag, self.episode, self.step_ = 0, -1, 0
        self.buffer = np.zeros(3)  # one buffer for ever: whoever keeps it without a copy is found out

    def _obs(self):
        self.buffer[:] = self.tag, self.episode, self.step_
        return self.buffer

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.tag, self.episode = seed % 1000, -1
        self.episode, self.step_ = self.episode + 1, 0
        return self._obs(), {}

    def step(self, action):
        before = self._obs().copy()
        self.step_ += 1
        over = self.step_ >= self.lengths[self.episode % len(self.lengths)]
        assert self.step_ <= self.lengths[self.episode % len(self.lengths)], "stepped behind the end"
        terminated = over and self.ending in ("terminated", "both")
        truncated = over and self.ending in ("truncated", "both")
        obs = self._obs()
        self.PLAYED.append((*before, int(action), float(self.step_), terminated, truncated, *obs))
        return obs, float(self.step_), terminated, truncated, {}


class OneState(gymnasium.Env):
    """One state, one action, reward 1, no end of its own: Q = 1 / (1 − γ)."""

    observation_space, action_space = Discrete(1), Discrete(1)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 0, {}

    def step(self, action):
        return 0, 1.0, False, False, {}


class Raising(Counting):
    """Raises at its `at`-th step."""

    def __init__(self, at=5, **kwargs):
        super().__init__(**kwargs)
        self.left = at

    def step(self, action):
        self.left -= 1
        if self.left == 0:
            raise ZeroDivisionError("the world broke")
        return super().step(action)


class Shaky(gymnasium.Env):
    """A vector world that is not deterministic given a seed."""

    observation_space, action_space = Box(0, 1, (2,)), Discrete(2)

    def reset(self, *, seed=None, options=None):
        return np.frombuffer(os.urandom(2), np.uint8) / np.float32(255), {}

    def step(self, action):
        return self.reset()[0], 0.0, False, False, {}


class NanReward(OneState):
    """Its reward is not a number."""

    def step(self, action):
        return 0, float("nan"), False, False, {}


class FloatImage(OneState):
    """Shows a float image."""

    observation_space = Box(0, 1, (8, 8, 3), np.float32)


gymnasium.register("test/Counting-v0", entry_point=Counting)
gymnasium.register("test/OneState-v0", entry_point=OneState, max_episode_steps=10)
gymnasium.register("test/Raising-v0", entry_point=Raising)
gymnasium.register("test/Shaky-v0", entry_point=Shaky, max_episode_steps=7)
gymnasium.register("test/NanReward-v0", entry_point=NanReward, max_episode_steps=10)
gymnasium.register("test/FloatImage-v0", entry_point=FloatImage)
