"""Worlds made to show faults: each answer they give says which environment, episode and step it belongs to."""

import multiprocessing
import os
import time
from typing import ClassVar

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from dqn.acting.exploration import EpsilonGreedy
from dqn.envs.tensor.grids import Catch
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
        assert self.step_ <= self.lengths[self.episode % len(self.lengths)], "stepped after the end"
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


class Identity(gymnasium.Env):
    """The observation is the action to take, drawn anew at each step: reward 1 for it, else 0; episodes of 10 steps.

    It is seen as a state number, or as a real number in [0, 1] where `box` is true.
    """

    def __init__(self, actions=3, box=False):
        self.box, self.action_space = box, Discrete(actions)
        self.observation_space = Box(0, 1, (1,), np.float32) if box else Discrete(actions)

    def _obs(self):
        self.wanted = int(self.np_random.integers(self.action_space.n))
        return np.array([self.wanted / (self.action_space.n - 1)], np.float32) if self.box else self.wanted

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._obs(), {}

    def step(self, action):
        reward = float(action == self.wanted)
        return self._obs(), reward, False, False, {}


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


class HugeReward(OneState):
    """Its reward is finite, and its square is not."""

    def step(self, action):
        return 0, 1e38, False, False, {}


class Planes(OneState):
    """Shows planes of real numbers, negative ones too, of a given shape."""

    def __init__(self, shape=(4, 11, 11)):
        self.observation_space = Box(-np.inf, np.inf, tuple(shape), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.full(self.observation_space.shape, -0.5, np.float32), {}

    def step(self, action):
        return self.reset()[0], 1.0, False, False, {}


ACTIONS = {
    "start": lambda: Discrete(3, start=-1),
    "int32": lambda: Discrete(3, dtype=np.int32),
    "uint8 start": lambda: Discrete(3, start=4, dtype=np.uint8),
    "pair": lambda: MultiDiscrete([3, 2]),
    "pair int32": lambda: MultiDiscrete([3, 2], dtype=np.int32),
    "pair int8 start": lambda: MultiDiscrete([3, 2], dtype=np.int8, start=[-1, 4]),
    "square": lambda: MultiDiscrete([[2, 3], [1, 2]], dtype=np.int16),
    "bits": lambda: MultiBinary(3),
    "square of bits": lambda: MultiBinary((2, 2)),
    "many": lambda: MultiDiscrete([40, 40]),
}


class Strict(OneState):
    """Takes no action but those that its action space contains; notes them. Ends after ten steps."""

    TAKEN: ClassVar[list] = []
    observation_space = Box(-1, 1, (3,), np.float32)

    def __init__(self, actions="pair"):
        self.action_space = ACTIONS[actions]()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 10
        return np.zeros(3, np.float32), {}

    def step(self, action):
        if not self.action_space.contains(action):
            raise ValueError(f"{action!r} of {getattr(action, 'dtype', type(action))} is not in {self.action_space}")
        self.TAKEN.append(np.array(action).tolist())
        self.left -= 1
        return np.zeros(3, np.float32), 1.0, self.left == 0, False, {}


class StrictVector(VectorEnv):
    """The same as a vector class of its own."""

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012
    single_observation_space = Box(-1, 1, (3,), np.float32)

    def __init__(self, num_envs=1, actions="pair"):
        self.num_envs, self.single_action_space = num_envs, ACTIONS[actions]()
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed=None, options=None):
        return np.zeros((self.num_envs, 3), np.float32), {}

    def step(self, actions):
        if not self.action_space.contains(actions) or not all(map(self.single_action_space.contains, actions)):
            raise ValueError(f"{actions!r} is not in {self.action_space}")
        no = np.zeros(self.num_envs, bool)
        return self.reset()[0], np.ones(self.num_envs), no, no, {}


MASKS = {  # forms of a mask of legal actions: its space in a Dict, and what it makes of [A] 0 and 1
    "float32": (lambda n: Box(0, 1, (n,)), lambda m: m.astype(np.float32)),
    "float64": (lambda n: Box(0, 1, (n,), np.float64), lambda m: m.astype(np.float64)),
    "unbounded": (lambda n: Box(-np.inf, np.inf, (n,)), lambda m: m.astype(np.float32)),
    "int8": (lambda n: Box(0, 1, (n,), np.int8), lambda m: m.astype(np.int8)),
    "int64": (lambda n: Box(0, 1, (n,), np.int64), lambda m: m.astype(np.int64)),
    "bool": (lambda n: Box(0, 1, (n,), np.bool_), lambda m: m.astype(bool)),
    "bits": (MultiBinary, lambda m: m.astype(np.int8)),
    "twos": (lambda n: MultiDiscrete([2] * n), lambda m: m.astype(np.int64)),
    "object": (lambda n: Box(0, 1, (n,)), lambda m: m.astype(object)),
    "list": (lambda n: Box(0, 1, (n,)), lambda m: m.tolist()),
    "words": (lambda n: Box(0, 1, (n,)), lambda m: m.astype(str)),
    "nan": (lambda n: Box(0, 1, (n,)), lambda m: np.where(m == 1, 1, np.nan).astype(np.float32)),
    "half": (lambda n: Box(0, 1, (n,)), lambda m: (m / 2).astype(np.float32)),
    "minus": (lambda n: Box(-1, 1, (n,)), lambda m: (2 * m - 1).astype(np.float32)),
    "two": (lambda n: Box(0, 2, (n,), np.uint8), lambda m: (2 * m).astype(np.uint8)),
    "short": (lambda n: Box(0, 1, (n - 1,)), lambda m: m[1:].astype(np.float32)),
    "column": (lambda n: Box(0, 1, (n, 1)), lambda m: m[:, None].astype(np.float32)),
}
GOOD_MASKS = ["float32", "float64", "unbounded", "int8", "int64", "bool", "bits", "twos", "object", "list"]


class MaskForms(OneState):
    """Six actions, of which the one that is shown is legal and any other raises. The mask of `form` lies in the Dict
    observation (`dict`), in a Dict within it (`nested`) or in the info. Ends after ten steps."""

    action_space = Discrete(6)

    def __init__(self, form="float32", where="dict"):
        space, self.form = MASKS[form]
        self.where, mask, seen = where, {"action_mask": space(6)}, {"observation": Box(-1, 9, (1,), np.float32)}
        nested = Dict({"state": Dict({**seen, **mask})})
        self.observation_space = {"dict": Dict({**seen, **mask}), "nested": nested, "info": seen["observation"]}[where]

    def see(self):
        seen = np.array([self.steps % 6], np.float32)
        mask = {"action_mask": self.form(np.eye(6)[self.steps % 6])}
        shown = {"observation": seen, **mask}
        return {"dict": (shown, {}), "nested": ({"state": shown}, {}), "info": (seen, mask)}[self.where]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.see()

    def step(self, action):
        if action != self.steps % 6:
            raise ValueError(f"illegal action {action}")
        self.steps += 1
        obs, info = self.see()
        return obs, 1.0, self.steps >= 10, False, info


class OldStep(OneState):
    """Answers a step as the old API of Gym does, or otherwise wrongly."""

    observation_space = Box(-1, 1, (2,), np.float32)

    def __init__(self, answer=4):
        self.answer = answer

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        obs = np.zeros(2, np.float32)
        whole = (obs, 1.0, False, False, {}, {})
        return {0: None, 4: (obs, 1.0, False, {}), 5: (obs, 1.0, False, {}, "more")}.get(self.answer, whole)


class OldReset(OldStep):
    """Answers a reset as the old API of Gym does: an observation alone, here of `size` numbers."""

    def __init__(self, size=2, as_dict=False):
        box = Box(-1, 1, (size,), np.float32)
        self.observation_space = Dict({"a": box, "b": Discrete(2)}) if as_dict else box
        self.obs = {"a": np.zeros(size, np.float32), "b": 0} if as_dict else np.zeros(size, np.float32)

    def reset(self, *, seed=None, options=None):
        return self.obs


class OldSeed(OldStep):
    """A reset that takes no seed."""

    def reset(self):
        return np.zeros(2, np.float32), {}


class OldVector(StrictVector):
    """A vector class of its own with the old API, of a step or of a reset."""

    def __init__(self, num_envs=1, old="step"):
        super().__init__(num_envs, "start")
        self.old = old

    def reset(self, *, seed=None, options=None):
        return super().reset()[0] if self.old == "reset" else super().reset()

    def step(self, actions):
        obs, reward, terminated, _, info = super().step(actions)
        return obs, reward, terminated, info


class Unlearnable(Counting):
    """Counting that gives `value` as the reward, or shows it, at its step `at`."""

    def __init__(self, what="reward", value="nan", at=5, shape=(3,), as_dict=False, **kwargs):
        super().__init__(**kwargs)
        box = Box(-np.inf, np.inf, tuple(shape), np.float32)
        self.what, self.value, self.left, self.as_dict = what, float(value), at, as_dict
        self.observation_space = Dict({"number": Discrete(2), "where": box}) if as_dict else box
        self.shape = tuple(shape)

    def seen(self, obs):
        shown = np.resize(obs, self.shape).astype(np.float32)
        if self.left == 0 and self.what == "observation":
            shown[..., -1] = self.value
        return {"number": 1, "where": shown} if self.as_dict else shown

    def reset(self, **kwargs):
        obs, info = super().reset(**kwargs)
        return self.seen(obs), info

    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        self.left -= 1
        reward = self.value if self.left == 0 and self.what == "reward" else reward
        return self.seen(obs), reward, terminated, truncated, info


class UnlearnableVector(StrictVector):
    """A vector class of its own whose last environment gives `value` as the reward, or shows it, at a step."""

    def __init__(self, num_envs=1, what="reward", value="nan", at=5):
        super().__init__(num_envs, "start")
        self.what, self.value, self.left = what, float(value), at

    def step(self, actions):
        obs, reward, terminated, truncated, info = super().step(actions)
        self.left -= 1
        if self.left == 0:
            (reward if self.what == "reward" else obs[:, 1])[-1] = self.value
        return obs, reward, terminated, truncated, info


class NanReward(Catch):
    """A world of tensors whose rewards are not numbers."""

    def step(self, state, action, generator):
        state, reward, terminated = super().step(state, action, generator)
        return state, reward * float("nan"), terminated


class NanSeen(Catch):
    """A world of tensors that shows no numbers."""

    def observe(self, state):
        return super().observe(state) * float("nan")


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


class Scaled(gymnasium.Env):
    """One decision an episode: the reward is 1 for the number of the quadrant that is shown, at a place that is large
    and far away (`scale` and `offset`)."""

    action_space = Discrete(4)

    def __init__(self, scale=1e4, offset=1e5, dtype="float32", as_dict=False):
        self.scale, self.offset, self.dtype, self.as_dict = scale, np.array([offset, -offset]), dtype, as_dict
        whole = np.dtype(dtype).kind != "f"
        low, high = (np.iinfo(dtype).min, np.iinfo(dtype).max) if whole else (-np.inf, np.inf)
        box = Box(low, high, (2,), np.dtype(dtype).type)
        self.observation_space = Dict({"number": Discrete(2), "place": box}) if as_dict else box

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.uniform(-1, 1, 2)
        seen = (self.place * self.scale + self.offset).astype(self.dtype)
        return {"number": 1, "place": seen} if self.as_dict else seen, {}

    def step(self, action):
        right = action == 2 * (self.place[0] > 0) + (self.place[1] > 0)
        return self.reset()[0], float(right), True, False, {}


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
    """Counting that tells more than it should: `episode_info` at a step, of a length that changes, rewards as arrays;
    it may raise when it is made or closed, kill its process at a step, or show `shown`."""

    def __init__(self, episode_info=None, reward="float", raises=None, die_at=None, shown=None, pause=0.0, **kwargs):
        super().__init__(**kwargs)
        if raises == "made" or (raises == "made elsewhere" and multiprocessing.parent_process()):
            raise RuntimeError("no data here")
        self.episode_info, self.reward, self.raises, self.die_at = episode_info, reward, raises, die_at
        self.shown, self.pause, self.count = shown, pause, 0

    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        self.count += 1
        time.sleep(self.pause)
        if self.count == self.die_at:
            os._exit(9)
        episode_info = {"array": np.zeros(self.count % 3), "mixed": [None, 1, "a"][self.count % 3], "mask": None}.get(
            self.episode_info
        )
        info = (
            {"action_mask": np.ones(3, bool)}
            if self.episode_info == "mask"
            else {self.episode_info: episode_info}
            if self.episode_info
            else {}
        )
        info = {"action_mask": [1] * (2 + self.count)} if self.episode_info == "ragged mask" else info
        reward = {"float": reward, "array": np.array([reward]), "int": np.int64(reward), "word": "much"}[self.reward]
        return obs if self.shown is None else self.shown, reward, terminated, truncated, None if info == {} else info

    def reset(self, **kwargs):
        return super().reset(**kwargs)[0], {"action_mask": [1] * 3} if self.episode_info == "ragged mask" else {}

    def close(self):
        if self.raises == "closed":
            raise OSError("no way back")


def episode_info(episode, steps, over):
    """What an episode tells at a step: a cost that grows, whether it is a success at its end, and much that is odd."""
    info = {"cost": 100.0 * episode + steps, "path": "a" * steps, "shape": np.zeros(steps), "list": [None] * steps}
    metrics = {"metrics": {"r": np.float32(steps), "deep": {"n": steps}}}
    if not over:
        return {**info, **metrics, "is_success": None}
    return {**info, **metrics, "is_success": episode % 2 == 0, "array": np.array([episode])}


class Telling(Counting):
    """Counting with much in its info, of a reset too; `steps` before the end it tells other values."""

    def reset(self, **kwargs):
        obs, _ = super().reset(**kwargs)
        return obs, {"cost": -1.0, "is_success": True}

    def step(self, action):
        obs, reward, terminated, truncated, _ = super().step(action)
        return obs, reward, terminated, truncated, episode_info(self.episode, self.step_, terminated or truncated)


class TellingVector(VectorEnv):
    """The same as a vector class of its own: environment e ends its episodes after 3 + e steps."""

    single_observation_space, single_action_space = Box(-9, 9, (1,), np.float32), Discrete(2)

    def __init__(self, num_envs=1, mode="SAME_STEP", flagged=True):
        self.num_envs, self.flagged = num_envs, flagged
        self.metadata = {"autoreset_mode": AutoresetMode[mode]}
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed=None, options=None):
        self.steps, self.episode = np.zeros(self.num_envs, int), np.zeros(self.num_envs, int)
        self.over = np.zeros(self.num_envs, bool)
        return np.zeros((self.num_envs, 1), np.float32), {}

    def step(self, actions):
        begins = self.over.copy()  # in NEXT_STEP this tick resets
        self.steps = np.where(begins, 0, self.steps + 1)
        self.episode += begins
        self.over = self.steps >= 3 + np.arange(self.num_envs)
        ends = self.over.copy()
        info = {"cost": 100.0 * self.episode + self.steps, "metrics": {"r": self.steps.astype(float)}}
        won = [bool(self.episode[e] % 2 == 0) if ends[e] else None for e in range(self.num_envs)]
        info["is_success"] = np.array(won, object)
        if self.flagged:
            info["_is_success"] = ends
        obs = np.zeros((self.num_envs, 1), np.float32)
        if self.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP and ends.any():
            info = {"final_info": info, "final_obs": obs.copy(), "cost": np.full(self.num_envs, -1.0)}
            self.steps[ends], self.over = 0, np.zeros(self.num_envs, bool)
            self.episode += ends
        return obs, np.ones(self.num_envs), ends, np.zeros(self.num_envs, bool), info


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
gymnasium.register("test/Identity-v0", entry_point=Identity, max_episode_steps=10)
gymnasium.register("test/Raising-v0", entry_point=Raising)
gymnasium.register("test/Shaky-v0", entry_point=Shaky, max_episode_steps=7)
gymnasium.register("test/HugeReward-v0", entry_point=HugeReward, max_episode_steps=10)
gymnasium.register("test/Planes-v0", entry_point=Planes, max_episode_steps=10)
gymnasium.register("test/Strict-v0", entry_point=Strict, vector_entry_point=StrictVector)
gymnasium.register("test/MaskForms-v0", entry_point=MaskForms)
gymnasium.register("test/OldStep-v0", entry_point=OldStep, vector_entry_point=OldVector)
gymnasium.register("test/OldReset-v0", entry_point=OldReset)
gymnasium.register("test/OldSeed-v0", entry_point=OldSeed)
gymnasium.register("test/Unlearnable-v0", entry_point=Unlearnable, vector_entry_point=UnlearnableVector)
gymnasium.register("test/Masked-v0", entry_point=Masked)
gymnasium.register("test/DictImage-v0", entry_point=DictImage)
gymnasium.register("test/Scaled-v0", entry_point=Scaled)
gymnasium.register("test/Odd-v0", entry_point=Odd)
gymnasium.register("test/Telling-v0", entry_point=Telling, vector_entry_point=TellingVector)
gymnasium.register("test/ThreeLives-v0", entry_point=ThreeLives)
gymnasium.register("test/Image-v0", entry_point=Image, max_episode_steps=10)
