"""The actor: observations in, actions out."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dqn.programs import Prepare, as_written
from dqn.protocols import Exploration


class Actor:
    """Acts for E environments: action = exploration(network(obs), rate). obs [E, ...] → action [E] int64.

    It carries what the network's core remembers of each environment's episode [E, S]; `before` is what it remembered
    before the last action, which the replay memory keeps. `prepare` makes the program of `policy` that acts.
    """

    def __init__(
        self,
        network: Any,
        exploration: Exploration,
        device: torch.device,
        generator: torch.Generator,
        num_envs: int = 1,
        prepare: Prepare = as_written,
    ):
        self.network, self.exploration, self.device, self.generator = network, exploration, device, generator
        self.rate = torch.zeros((), device=device)
        self.before = self.remembered = network.initial(num_envs, device)
        on_cpu, self.remembers = device.type == "cpu", self.before.shape[1] > 0
        self.show = np.asarray if on_cpu else lambda obs: torch.from_numpy(obs).to(device)
        self.set_rate = self.rate.numpy().fill if on_cpu else self.rate.fill_
        self.program = prepare(self.policy)

    @torch.no_grad()
    def policy(self, obs: Any, state: Tensor) -> tuple[Any, Tensor]:
        """Actions [E] for obs [E, ...] and what is remembered [E, S] before, and what is remembered then; observations
        on a CPU may be arrays, and then so may actions be."""
        values, state = self.network.step(torch.as_tensor(obs), state)
        return self.exploration(values, self.rate, self.generator), state

    def act(self, obs: np.ndarray, env_steps: int) -> np.ndarray:
        """Act with the exploration rate of `env_steps`."""
        self.before = self.remembered
        self.set_rate(self.exploration.rate(env_steps))
        action, state = self.program(self.show(obs), self.before)
        if self.remembers:
            self.remembered = state.clone()  # a captured policy writes over its results
        return action if isinstance(action, np.ndarray) else action.numpy(force=True)

    def forget(self, begins: np.ndarray) -> None:
        """An episode begins where `begins` [E]: what was remembered there belongs to another."""
        if self.remembers and begins.any():
            keep = torch.from_numpy(~begins).to(self.device)
            self.remembered = self.remembered * keep.unsqueeze(-1)

    def state(self) -> dict[str, Tensor]:
        return {"generator": self.generator.get_state(), "remembered": self.remembered}

    def load(self, state: dict[str, Tensor]) -> None:
        self.generator.set_state(state["generator"])
        self.remembered = state["remembered"].to(self.device)
