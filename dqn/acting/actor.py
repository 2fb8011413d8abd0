"""The actor: observations in, actions out."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from dqn.acting.exploration import EpsilonGreedy


class Actor:
    """Acts for E environments: action = exploration(network(obs).q, ε). obs [E, ...] → action [E] int64."""

    def __init__(
        self, network: nn.Module, exploration: EpsilonGreedy, device: torch.device, generator: torch.Generator
    ):
        self.network, self.exploration, self.device, self.generator = network, exploration, device, generator
        self.rate = torch.zeros((), device=device)

    def act(self, obs: np.ndarray, env_steps: int) -> np.ndarray:
        """Act with the ε of `env_steps`."""
        return self.act_with(obs, self.exploration.epsilon(env_steps), self.generator)

    @torch.no_grad()
    def act_with(self, obs: np.ndarray, epsilon: float, generator: torch.Generator) -> np.ndarray:
        """Act with an explicit ε and given randomness: an evaluation brings its own."""
        q = self.network(torch.from_numpy(obs).to(self.device)).q  # [E, A]
        return self.exploration(q, self.rate.fill_(epsilon), generator).cpu().numpy()

    def state(self) -> dict[str, Tensor]:
        return {"generator": self.generator.get_state()}

    def load(self, state: dict[str, Tensor]) -> None:
        self.generator.set_state(state["generator"])
