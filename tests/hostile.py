"""Environments that exit, that hang, of which one alone can exist, or that end what others draw with."""

import sys
import time
from typing import ClassVar

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete


class Plain(gymnasium.Env):
    """Ten steps of reward 1."""

    observation_space, action_space = Box(-1, 1, (3,), np.float32), Discrete(2)
    t = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(3, np.float32), {}

    def step(self, action):
        self.t += 1
        return np.zeros(3, np.float32), 1.0, self.t >= 10, False, {}


class Exiting(Plain):
    """Calls sys.exit(0) `where` it is told, as a script that was made an environment does."""

    def __init__(self, where):
        self.where, self.count = where, 0
        self.leave("init")

    def leave(self, where):
        if where == self.where:
            sys.exit(0)

    def reset(self, **kwargs):
        self.leave("reset")
        return super().reset(**kwargs)

    def step(self, action):
        self.count += 1
        if self.count > 30:
            self.leave("step")
        return super().step(action)

    def close(self):
        self.leave("close")


class Hanging(Plain):
    """Never answers its `at`-th step."""

    def __init__(self, at=40):
        self.at, self.count = at, 0

    def step(self, action):
        self.count += 1
        while self.count >= self.at:
            time.sleep(0.1)
        return super().step(action)


class OneInstance(Plain):
    """Only one of them can be open, as where a simulator holds a port."""

    opened: ClassVar[list] = []

    def __init__(self):
        if OneInstance.opened:
            raise OSError("the port is in use")
        OneInstance.opened.append(self)

    def close(self):
        if self in OneInstance.opened:
            OneInstance.opened.remove(self)


class SharedLibrary(Plain):
    """Whoever closes one ends what all others draw with."""

    alive = False

    def __init__(self):
        SharedLibrary.alive = True

    def step(self, action):
        if not SharedLibrary.alive:
            raise RuntimeError("display Surface quit")
        return super().step(action)

    def close(self):
        SharedLibrary.alive = False


class Endless(Plain):
    """Has no end, and no time limit."""

    def step(self, action):
        return np.zeros(3, np.float32), -1.0, False, False, {}


for name, kind in {"Plain": Plain, "Exiting": Exiting, "Hanging": Hanging, "OneInstance": OneInstance,
                   "SharedLibrary": SharedLibrary, "Endless": Endless}.items():  # fmt: skip
    gymnasium.register(f"hostile/{name}-v0", entry_point=kind)
