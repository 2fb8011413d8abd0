"""Worlds made to show faults: each answer they give says which environment, episode and step it belongs to."""

import multiprocessing
import os
import time
from typing import ClassVar

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary

from dqn.acting.exploration import EpsilonGreedy
from dqn.networks.torsos import MLP


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

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros((8, 8, 3), np.float32), {}


class Masked(Counting):
    """Counting with four actions, of which `legal(tag, episode, step)` may be taken; an illegal one raises.

    At a terminated end the mask is `empty` (no legal action), `missing` or as everywhere (`full`). `lost_at` is a
    step without a mask, `blocked_at` one where nothing is legal. One list or array holds all masks, for ever.
    """

    PLAYED: ClassVar[list[tuple]] = []
    action_space = Discrete(4)

    def __init__(self, end="empty", lost_at=None, blocked_at=None, as_list=False, **kwargs):
        super().__init__(**kwargs)
        self.end, self.lost_at, self.blocked_at, self.all_lengths = end, lost_at, blocked_at, self.lengths
        self.mask = [0] * 4 if as_list else np.zeros(4, np.int8)

    @staticmethod
    def legal(tag, episode, step):
        bits = (7 * int(tag) + 3 * int(episode) + 5 * int(step)) % 15 + 1
        return [bits >> a & 1 == 1 for a in range(4)]

    def _info(self, terminated=False):
        if self.step_ == self.lost_at or (terminated and self.end == "missing"):
            return {}
        empty = self.step_ == self.blocked_at or (terminated and self.end == "empty")
        self.mask[:] = [0] * 4 if empty else [int(yes) for yes in self.legal(self.tag, self.episode, self.step_)]
        return {"action_mask": self.mask}

    def reset(self, *, seed=None, options=None):
        if seed is not None:  # neighbours end at different ticks
            first = seed % len(self.all_lengths)
            self.lengths = self.all_lengths[first:] + self.all_lengths[:first]
        obs, _ = super().reset(seed=seed)
        return obs, self._info()

    def step(self, action):
        if not self.legal(self.tag, self.episode, self.step_)[action]:
            raise ValueError(f"illegal action {action}")
        obs, reward, terminated, truncated, _ = super().step(action)
        return obs, reward, terminated, truncated, self._info(terminated)


class DictImage(gymnasium.ObservationWrapper):
    """Counting, or Masked if `masked`, seen as a Dict: an image that holds [tag, episode, step] in its corner, and in
    a Dict of its own [episode, step], the step as a number from 2 to 8 and as bits."""

    def __init__(self, size=36, masked=False, **kwargs):
        super().__init__(Masked(**kwargs) if masked else Counting(**kwargs))
        inside = {
            "where": Box(-np.inf, np.inf, (2,), np.float64),
            "number": Discrete(7, start=2),
            "bits": MultiBinary(3),
        }
        self.observation_space = Dict({"image": Box(0, 255, (size, size, 3), np.uint8), "own": Dict(inside)})
        self.image, self.bits = np.zeros((size, size, 3), np.uint8), np.zeros(3, np.int8)  # one buffer for ever

    def observation(self, obs):
        self.image[0, 0], step = obs % 256, int(obs[2])
        self.bits[:] = [step >> i & 1 for i in range(3)]
        return {"image": self.image, "own": {"where": obs[1:], "number": 2 + step % 7, "bits": self.bits}}


class Image(OneState):
    """Shows a black uint8 image of a given shape."""

    def __init__(self, shape=(84, 84, 4)):
        self.observation_space = Box(0, 255, tuple(shape), np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(self.observation_space.shape, np.uint8), {}

    def step(self, action):
        return np.zeros(self.observation_space.shape, np.uint8), 1.0, False, False, {}


class Odd(Counting):
    """Counting that tells more than it should: `told` at a step, of a length that changes, rewards as arrays; it may
    raise when it is made or closed, kill its process at a step, or show `shown`."""

    def __init__(self, told=None, reward="float", raises=None, die_at=None, shown=None, pause=0.0, **kwargs):
        super().__init__(**kwargs)
        if raises == "made" or (raises == "made elsewhere" and multiprocessing.parent_process()):
            raise RuntimeError("no data here")
        self.told, self.reward, self.raises, self.die_at = told, reward, raises, die_at
        self.shown, self.pause, self.count = shown, pause, 0

    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        self.count += 1
        time.sleep(self.pause)
        if self.count == self.die_at:
            os._exit(9)
        told = {"array": np.zeros(self.count % 3), "mixed": [None, 1, "a"][self.count % 3], "mask": None}.get(self.told)
        info = {"action_mask": np.ones(3, bool)} if self.told == "mask" else {self.told: told} if self.told else {}
        reward = {"float": reward, "array": np.array([reward]), "int": np.int64(reward), "word": "much"}[self.reward]
        return obs if self.shown is None else self.shown, reward, terminated, truncated, None if info == {} else info

    def close(self):
        if self.raises == "closed":
            raise OSError("no way back")


class ThreeLives(Counting):
    """A game of three lives of three steps, each told by info["lives"] as Atari does."""

    def __init__(self):
        super().__init__(lengths=(9,))

    def step(self, action):
        obs, _, terminated, truncated, _ = super().step(action)
        return obs, 1.0, terminated, truncated, {"lives": 3 - self.step_ // 3}


class Times5(gymnasium.RewardWrapper):
    """Rewards five times as large."""

    def reward(self, reward):
        return 5.0 * reward


class Dropped(MLP):
    """A torso that draws from torch's own stream."""

    def forward(self, obs):
        return torch.dropout(super().forward(obs), 0.5, self.training)


class Flat(torch.nn.Module):
    """A torso without layers: what is seen, as one vector."""

    def __init__(self, spec):
        super().__init__()
        self.features = int(np.prod(spec.obs_shape))

    def forward(self, obs):
        return obs


class Curious(EpsilonGreedy):
    """An exploration with a name of its own."""

    name = "curiosity"


gymnasium.register("test/Counting-v0", entry_point=Counting)
gymnasium.register("test/OneState-v0", entry_point=OneState, max_episode_steps=10)
gymnasium.register("test/Raising-v0", entry_point=Raising)
gymnasium.register("test/Shaky-v0", entry_point=Shaky, max_episode_steps=7)
gymnasium.register("test/NanReward-v0", entry_point=NanReward, max_episode_steps=10)
gymnasium.register("test/FloatImage-v0", entry_point=FloatImage)
gymnasium.register("test/Masked-v0", entry_point=Masked)
gymnasium.register("test/DictImage-v0", entry_point=DictImage)
gymnasium.register("test/Odd-v0", entry_point=Odd)
gymnasium.register("test/ThreeLives-v0", entry_point=ThreeLives)
gymnasium.register("test/Image-v0", entry_point=Image, max_episode_steps=10)
