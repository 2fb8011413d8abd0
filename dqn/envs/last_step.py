"""The last action and reward as a part of what is seen, by Gymnasium and NumPy alone: an export copies this file."""

from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict


class LastStep(gymnasium.Wrapper):
    """Shows the action and the reward that led here beside what is seen, as R2D2's core is told them: a Dict with
    `last_action` (one-hot; flattened where it is no number) and `last_reward` [1], both 0 at the start of an episode.

    Source: Kapturowski et al. (2019), Recurrent Experience Replay in Distributed Reinforcement Learning, appendix.
    """

    def __init__(self, env: gymnasium.Env):
        super().__init__(env)
        space, self.taken = env.observation_space, cast(Box, gymnasium.spaces.flatten_space(env.action_space))
        own = space.spaces if isinstance(space, Dict) else {"observation": space}
        reward = Box(-np.inf, np.inf, (1,), np.float32)
        self.observation_space = Dict({**own, "last_action": self.taken, "last_reward": reward})

    def _shown(self, obs: Any, action: np.ndarray, reward: Any) -> dict[str, Any]:
        own = obs if isinstance(obs, dict) else {"observation": obs}
        return {**own, "last_action": action, "last_reward": np.array([reward], np.float32)}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        obs, info = self.env.reset(seed=seed, options=options)
        return self._shown(obs, np.zeros(self.taken.shape, self.taken.dtype), 0.0), info

    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = self.env.step(action)
        taken = gymnasium.spaces.flatten(self.env.action_space, action)
        return self._shown(obs, taken, reward), reward, terminated, truncated, info  # type: ignore[arg-type]
