"""The objective: the one place where a prediction meets its target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dqn.types import Backup, Batch


@dataclass
class Loss:
    """`total` 0-D with gradient; `td_error` [T, B] and `q` [T, B, A] without."""

    total: Tensor
    td_error: Tensor
    q: Tensor


class Objective:
    """Semi-gradient temporal-difference loss,
    L = mean_{T,B} w · D(Z(s, a), h(r + bonus + discount · (h⁻¹ Z̄(s′, π′) + entropy))).

    `backup` names π′, bonus and entropy (ops.backups), the head measures D and mixes Z̄, `transform` is h
    (ops.transforms). Nothing behind the target carries a gradient. Sutton & Barto (2018), §11.3; Mnih et al. (2015).
    """

    def __init__(self, backup: Callable[[Tensor, Callable[[], Tensor]], Backup], transform: Any):
        self.backup, self.transform = backup, transform

    def __call__(self, online: Any, target: Any, batch: Batch) -> Loss:
        length, shift = batch.action.shape[0], batch.obs.shape[0] - batch.action.shape[0]
        values = online(batch.obs[:length])
        atoms, probs = self.targets(online, target, batch, batch.obs[shift:])
        error, td_error = online.head.loss(values, batch.action, atoms, probs)  # [T, B]
        if error.shape != batch.action.shape or batch.weight.shape != batch.action.shape[1:]:
            raise ValueError(
                f"head.loss must be [T, B], got {tuple(error.shape)} for actions {tuple(batch.action.shape)}"
            )
        return Loss((batch.weight * error).mean(), td_error, values.q.detach())

    @torch.no_grad()
    def targets(self, online: Any, target: Any, batch: Batch, obs_next: Tensor) -> tuple[Tensor, Tensor | None]:
        """The Bellman line; atoms [T, B, N] and their probabilities (None: certain)."""
        following = target(obs_next)
        backup = self.backup(following.q, lambda: online(obs_next).q)
        future, probs = target.head.mix(following, backup.pi)  # [T, B, N]
        reward, discount = (batch.reward + backup.bonus).unsqueeze(-1), batch.discount.unsqueeze(-1)
        entropy = backup.entropy.unsqueeze(-1) if isinstance(backup.entropy, Tensor) else backup.entropy
        atoms = self.transform(reward + discount * (self.transform.inverse(future) + entropy))
        return atoms, probs
