"""Many copies of a tensor world: time limits, autoresets, and the same door as Gymnasium's environments."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from dqn.envs.tensor.world import World
from dqn.types import Step


@dataclass
class Tick:
    """What one tick gave, on the device; `final_obs` [E, ...] is what was seen before a reset, everywhere."""

    obs: Tensor  # [E, ...]
    reward: Tensor  # [E]
    terminated: Tensor  # [E] bool
    truncated: Tensor  # [E] bool
    final_obs: Tensor  # [E, ...]


class TensorEnvs:
    """E copies of `world`, reset at the tick that ends their episode (every tick decides in all of them).

    An episode is truncated after `limit` steps (0: never), the world's own unless told, or after `cap` steps. `tick`
    writes in place and asks the device nothing, so that an engine can capture it; `reset` and `step` are as those of
    envs.gym.GymEnvs.
    """

    mode, episode_info = AutoresetMode.SAME_STEP, ()  # a world of tensors has no info

    def __init__(self, world: World, num_envs: int, device: torch.device | str = "cpu", limit: int | None = None):
        self.world, self.num_envs, self.device = world, num_envs, torch.device(device)
        self.id, self.spec = type(world).__name__, world.spec
        self.limit = (world.limit if limit is None else limit) or None
        self.cap: int | None = None
        self.generator = torch.Generator(self.device).manual_seed(0)
        self.inside = world.reset(num_envs, self.generator, self.device)
        self.elapsed = torch.zeros(num_envs, dtype=torch.int64, device=self.device)

    @torch.no_grad()
    def tick(self, action: Tensor) -> Tick:
        """One step of all environments from actions [E]."""
        world = self.world
        after, reward, terminated = world.step(self.inside, action, self.generator)
        elapsed = self.elapsed + 1
        most = min((n for n in (self.limit, self.cap) if n is not None), default=None)
        truncated = torch.zeros_like(terminated) if most is None else (elapsed >= most) & ~terminated
        over, final = terminated | truncated, world.observe(after)
        begun = world.reset(self.num_envs, self.generator, self.device)
        for name, mine in self.inside.items():
            mine.copy_(torch.where(over.reshape(-1, *[1] * (mine.ndim - 1)), begun[name], after[name]))
        self.elapsed.copy_(torch.where(over, 0, elapsed))
        return Tick(world.observe(self.inside), reward, terminated, truncated, final)

    def begin(self, seed: int) -> Tensor:
        """Begin every environment anew; what is seen [E, ...]."""
        self.generator.manual_seed(seed)
        begun = self.world.reset(self.num_envs, self.generator, self.device)
        for name, mine in self.inside.items():
            mine.copy_(begun[name])
        self.elapsed.zero_()
        return self.world.observe(self.inside)

    def reset(self, seed: int) -> np.ndarray:
        """Begin every environment anew."""
        return self.begin(seed).numpy(force=True)

    def step(self, action: np.ndarray) -> Step:
        """One tick of all environments: action [E] int64 → Step."""
        tick = self.tick(torch.from_numpy(action).to(self.device))
        obs, reward, terminated, truncated, final = (x.numpy(force=True) for x in vars(tick).values())
        ended = (terminated | truncated).any()
        return Step(obs, reward, terminated, truncated, np.zeros_like(terminated), final if ended else None)

    def optimal_q(self, gamma: float) -> np.ndarray | None:
        """Q* [S, A] where the world knows it, else None."""
        known: Any = getattr(self.world, "optimal_q", None)
        return known(gamma) if known is not None and gamma < 1 else None

    def set_cap(self, cap: int | None) -> None:
        """Cut every episode after `cap` steps, too, where it is stepped by `step`."""
        self.cap = cap

    def close(self) -> None:
        """Nothing is open."""

    def state(self) -> dict[str, Tensor]:
        return {"elapsed": self.elapsed, "generator": self.generator.get_state(), **self.inside}

    def load(self, state: dict[str, Tensor]) -> None:
        self.generator.set_state(state["generator"])
        self.elapsed.copy_(state["elapsed"])
        for name, mine in self.inside.items():
            mine.copy_(state[name])
