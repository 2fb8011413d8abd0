"""Worlds that need memory: what is seen now does not say what to do."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.spaces import Box, Discrete

from dqn.errors import UsageError

NORTH, EAST, SOUTH, WEST = range(4)


class TMaze(gymnasium.Env):
    """A corridor of `length` steps with a junction at its end, where the way to the goal is the one shown at the start.

    Seen: (0, 1, 1) at the start where the goal lies north, (1, 1, 0) where south; (1, 0, 1) on the way, (0, 1, 0) at
    the junction. Actions north, east, south, west. At the junction, north and south end the episode: 4 on the right
    way, −0.1 on the wrong one; −0.1 also for every action that does not move, else 0. The best return is 4, and 1.95
    without memory. Bakker (2002). Errors: UsageError for a length below 1.
    """

    metadata = {"render_modes": []}  # noqa: RUF012
    observation_space, action_space = Box(0, 1, (3,), np.float32), Discrete(4)

    def __init__(self, length: int = 10):
        if length < 1:
            raise UsageError(f"TMaze needs length ≥ 1, got length={length}.")
        self.length, self.place, self.goal = length, 0, NORTH

    def _obs(self) -> np.ndarray:
        if self.place == 0:
            seen = (0, 1, 1) if self.goal == NORTH else (1, 1, 0)
        else:
            seen = (0, 1, 0) if self.place == self.length else (1, 0, 1)
        return np.array(seen, np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.place, self.goal = 0, (NORTH, SOUTH)[int(self.np_random.integers(2))]
        return self._obs(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        if self.place == self.length and action in (NORTH, SOUTH):
            return self._obs(), 4.0 if action == self.goal else -0.1, True, False, {}
        before = self.place
        self.place = min(max(before + (action == EAST) - (action == WEST), 0), self.length)
        return self._obs(), 0.0 if self.place != before else -0.1, False, False, {}


def hidden_cartpole(**kwargs: Any) -> gymnasium.Env:
    """CartPole whose velocities are not seen: [position of the cart, angle of the pole]. Cf. Bakker (2002)."""
    env = CartPoleEnv(**kwargs)
    seen, space = [0, 2], env.observation_space
    assert isinstance(space, Box)
    positions = Box(space.low[seen], space.high[seen], dtype=np.float32)
    return gymnasium.wrappers.TransformObservation(env, lambda obs: obs[seen], positions)
