"""The replay memory: sample starts, gather their windows, fold the returns."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dqn.ops.returns import n_step
from dqn.replay.ring import Ring
from dqn.types import Batch


class Memory:
    """A ring and a sampler that make `Batch`es of n-step transitions (T = 1, s = 1).

    obs [2, B, ...] holds s_t and the bootstrap observation s_{t+k}; reward and discount are folded by ops.returns.
    """

    def __init__(self, ring: Ring, sampler: Any, gamma: float, steps: int, generator: torch.Generator):
        self.ring, self.sampler, self.gamma, self.generator = ring, sampler, gamma, generator
        self.offsets = torch.arange(steps, device=ring.device)[:, None]  # [n, 1]

    def sample(self) -> Batch:
        ring = self.ring
        slot, env, weight = self.sampler.sample(ring, self.generator)
        flat = ((slot + self.offsets) % ring.rows) * ring.num_envs + env  # [n, B]; take() reads [R, E] as one row
        terminated = ring.terminated.take(flat)
        done = terminated | ring.truncated.take(flat)
        reward, discount, k = n_step(ring.reward.take(flat), terminated, done, self.gamma)
        bootstrap = ((slot + k) % ring.rows) * ring.num_envs + env
        obs = ring.obs.flatten(0, 1).index_select(0, torch.cat([flat[0], bootstrap]))
        return Batch(
            obs=obs.unflatten(0, (2, -1)),
            action=ring.action.take(flat[:1]),
            reward=reward[None],
            discount=discount[None],
            weight=weight,
        )

    def state(self) -> dict[str, Tensor]:
        return {
            **{f"ring/{k}": v for k, v in self.ring.state().items()},
            **{f"sampler/{k}": v for k, v in self.sampler.state().items()},
            "generator": self.generator.get_state(),
        }

    def load(self, state: dict[str, Tensor]) -> None:
        self.ring.load({k: state[f"ring/{k}"] for k in self.ring.state()})
        self.sampler.load({k: state[f"sampler/{k}"] for k in self.sampler.state()})
        self.generator.set_state(state["generator"])
