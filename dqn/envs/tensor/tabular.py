"""The worlds of numbered states whose Q* is known, as tensors: the tables are those of dqn.envs.tabular."""

from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from dqn.envs.tabular import Chain, RandomMDP, TabularEnv
from dqn.envs.tensor.tables import Tables
from dqn.types import Spec


class Tabular:
    """P(s_j(s, a) | s, a) = p_j(s, a), r = r(s, a) + σ ε with ε ~ N(0, 1): the finite MDP of `world`.

    Observation [E] int64, the state's number; begins in any state that is not final, with equal probability, and ends
    where a final one is reached. `limit` is the one its class is registered with, 0 if it is not. Probabilities are
    rounded to torch's default dtype. Errors: ValueError for a world with illegal actions.
    """

    def __init__(self, world: TabularEnv):
        if world.legal is not None:
            raise ValueError("Tabular takes worlds where every action may be taken: leave legal at 1")
        states, self.actions = world.reward.shape
        self.world, self.noise, self.dtype = world, world.noise, torch.get_default_dtype()
        self.begins = int(np.count_nonzero(~world.final))  # final states come last
        self.tables = Tables(
            successor=torch.from_numpy(world.successor).flatten(0, 1).to(torch.int64),  # [S · A, J]
            cumulative=torch.from_numpy(world.cumulative).flatten(0, 1).to(self.dtype),  # [S · A, J − 1]
            reward=torch.from_numpy(world.reward).flatten().to(self.dtype),  # [S · A]
            final=torch.from_numpy(world.final),  # [S] bool
        )
        self.spec = Spec((), np.dtype(np.int64), self.actions, states)
        name = f"{type(world).__module__}:{type(world).__name__}"
        limits = [entry.max_episode_steps for entry in gymnasium.registry.values() if entry.entry_point == name]
        self.limit = (limits[0] if limits else None) or 0

    def reset(self, num_envs: int, generator: torch.Generator, device: torch.device) -> dict[str, Tensor]:
        """Uniform over the states that are not final: [E] int64."""
        state = torch.randint(self.begins, (num_envs,), generator=generator, device=device)
        self.tables.on(state.device)
        return {"state": state}

    def step(
        self, state: dict[str, Tensor], action: Tensor, generator: torch.Generator
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """One transition: the branch is the one in whose share of [0, 1) a uniform number falls."""
        here = state["state"]
        tables, row = self.tables.on(here.device), here * self.actions + action
        draw = torch.rand(len(here), 1, generator=generator, dtype=self.dtype, device=here.device)
        branch = (draw >= tables["cumulative"][row]).sum(-1, keepdim=True)
        there = tables["successor"][row].gather(-1, branch).squeeze(-1)
        reward = tables["reward"][row]
        if self.noise:
            noise = torch.randn(len(here), generator=generator, dtype=self.dtype, device=here.device)
            reward = reward + self.noise * noise
        return {"state": there}, reward, tables["final"][there]

    def observe(self, state: dict[str, Tensor]) -> Tensor:
        """The state's number [E] int64."""
        return state["state"].clone()

    def optimal_q(self, gamma: float) -> np.ndarray:
        """Q* [S, A] of the infinite horizon, NaN in final states."""
        return self.world.optimal_q(gamma)


def random_mdp(**kwargs: Any) -> Tabular:
    """A random MDP, of 1000 states and 4 actions unless told otherwise; arguments are those of RandomMDP."""
    return Tabular(RandomMDP(**kwargs))


def chain(**kwargs: Any) -> Tabular:
    """A row of 10 states unless told otherwise; arguments are those of Chain."""
    return Tabular(Chain(**kwargs))
