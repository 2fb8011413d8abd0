"""One environment behind the door of many."""

from typing import Any

import numpy as np

from dqn.envs.gym import GymEnvs
from dqn.types import EPISODE_INFO, Step


class Alone(GymEnvs):
    """A single environment in SAME_STEP, stepped without the vector class around it, whose bookkeeping takes as long as
    a step of a small world. Resets, and everything else that is asked of it, go through that class."""

    @staticmethod
    def fits(envs: GymEnvs) -> bool:
        """Whether that leaves nothing out: there are no masks and no Dict, an array is all that is seen."""
        return envs.num_envs == 1 and not envs.masked and not envs.spec.parts

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.dtype, self.axes = self.spec.obs_dtype, len(self.spec.obs_shape) + 1

    def _one(self, obs: Any) -> np.ndarray:
        """A copy: an environment may reuse its buffer."""
        if self.observations.plain:
            return np.array(obs, self.dtype, ndmin=self.axes)
        return self.observations.read(np.array(obs)[None])

    def step(self, action: np.ndarray) -> Step:
        """One tick: action [1] int64 → Step."""
        env = self.envs.envs[0]  # pyright: ignore[reportAttributeAccessIssue]  # a SyncVectorEnv
        obs, reward, terminated, truncated, info = env.step(self.actions(action)[0])
        if info:
            self._no_surprise(info)
        final, ended, cut, episode_info = None, self._none, self._none, None
        if terminated or truncated:
            final, (ended, cut) = self._one(obs), np.array([[terminated], [truncated]], bool)
            episode_info = info[EPISODE_INFO][None] if EPISODE_INFO in info else None
            obs, _ = env.reset()
        return Step(self._one(obs), np.array((reward,), np.float64), ended, cut, self._none, final, episode_info)
