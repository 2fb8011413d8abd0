"""Images without a game, for `scripts/bench`: what a network of an Atari agent costs, and nothing else.

scripts/bench engines env=tensor env.world._target_=benchmarks.frames.Frames torso=nature_cnn tuned.batch_size=32
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dqn.types import Spec


class Frames:
    """Every observation [E, 84, 84, 4] uint8 is noise, every reward 0; six actions, as in Pong."""

    limit = 1000

    def __init__(self, size: int = 84, channels: int = 4):
        self.spec = Spec((size, size, channels), np.dtype(np.uint8), 6)

    def reset(self, num_envs: int, generator: torch.Generator, device: torch.device) -> dict[str, Tensor]:
        shape = (num_envs, *self.spec.obs_shape)
        noise = torch.randint(256, shape, generator=generator, device=device)
        return {"image": noise.to(torch.uint8)}

    def step(
        self, state: dict[str, Tensor], action: Tensor, generator: torch.Generator
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        still = torch.zeros(len(action), device=action.device)
        return {"image": state["image"].roll(1, 1)}, still, still > 0

    def observe(self, state: dict[str, Tensor]) -> Tensor:
        return state["image"]
