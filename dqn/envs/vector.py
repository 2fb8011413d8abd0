"""A vector class of the environment's own, watched as single environments are (envs.wrappers)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper

from dqn.envs.answers import STEP, WrongAnswer, numbers, reset_answer
from dqn.envs.spaces import not_finite
from dqn.envs.wrappers import EnvironmentFailure
from dqn.types import EPISODE_INFO


class WatchedVector(VectorWrapper):
    """Ends the run with a sentence where an answer has another form than Gymnasium's, or where a reward or an
    observation is not finite. Puts the values of the info that `episode_info` names beside the masks, where an episode
    ended: in `final_info` where the class resets in the same step, as Gymnasium's own vectors do.
    """

    def __init__(self, env: VectorEnv, id: str, episode_info: Sequence[str] = ()):
        super().__init__(env)
        self.id, self.episode_info, self.steps = id, episode_info, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        try:
            obs, info = reset_answer(self.env.reset(seed=seed, options=options))
        except WrongAnswer as error:
            raise EnvironmentFailure(f"the vector class of {self.id} cannot be used: {error}") from error
        self._refuse_unlearnable("showed an observation", obs)
        return obs, info

    def step(self, actions: Any) -> Any:
        self.steps += 1
        answer = self.env.step(actions)
        if not isinstance(answer, (tuple, list)) or len(answer) != 5 or not isinstance(answer[4] or {}, Mapping):
            raise EnvironmentFailure(f"the vector class of {self.id} cannot be used: {STEP}")
        obs, reward, terminated, truncated, info = answer
        self._refuse_unlearnable("gave a reward", reward)
        self._refuse_unlearnable("showed an observation", obs)
        return obs, reward, terminated, truncated, self._with_told(info or {})

    def _with_told(self, info: dict[str, Any]) -> dict[str, Any]:
        if not self.episode_info:
            return info
        ends = info.get("final_info") if isinstance(info.get("final_info"), Mapping) else None
        source = info if ends is None else ends
        rows = np.stack([numbers(source, name, self.num_envs) for name in self.episode_info], -1)  # [E, I]
        return {**info, EPISODE_INFO: rows} if ends is None else {**info, "final_info": {**ends, EPISODE_INFO: rows}}

    def _refuse_unlearnable(self, did: str, given: Any) -> None:
        if isinstance(given, Mapping):
            for inner in given.values():
                self._refuse_unlearnable(did, inner)
            return
        array = np.asarray(given)
        if array.dtype.kind == "f" and (wrong := not_finite(array)):
            e = int(np.argwhere(~np.isfinite(array))[0][0])
            raise EnvironmentFailure(
                f"environment {e} ({self.id}) {did} that no network can learn from at its step {self.steps}: {wrong}"
            )
