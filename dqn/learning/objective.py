"""The objective: the one place where a prediction meets its target."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dqn.ops.returns import lambda_bootstrap
from dqn.protocols import Backup, Term, Transform
from dqn.types import Batch, Values


@dataclass
class Loss:
    """`total` 0-D with gradient; `td_error` [T, B] and `q` [T, B, A] without."""

    total: Tensor
    td_error: Tensor
    q: Tensor


class Objective:
    """Semi-gradient temporal-difference loss,
    L = mean_{T,B} w · (D(Z(s, a), h(r + bonus + discount · (Σ π′ h⁻¹ Z̄(s′, ·) + entropy))) + Σ terms).

    With `td_weight` below 1 the first summand counts less, with 0 the terms alone are learnt.
    `backup` names π′, bonus and entropy (ops.backups), of returns as they are; the head measures D and mixes h⁻¹ Z̄,
    `transform` is h (ops.transforms), `terms` are losses beside it (learning.terms). With `lambda_` the future is the
    λ-mixture of all n-step returns in the batch (ops.returns). Nothing after the target carries a gradient.
    Sutton & Barto (2018), §11.1; Mnih et al. (2015).
    """

    def __init__(
        self,
        backup: Backup,
        transform: Transform,
        lambda_: float | None = None,
        terms: Sequence[Term] = (),
        td_weight: float = 1.0,
    ):
        self.backup, self.transform, self.lambda_, self.terms = backup, transform, lambda_, terms
        self.td_weight = td_weight

    def __call__(self, online: Any, target: Any, batch: Batch) -> Loss:
        return self.loss(online, batch, *self.targets(online, target, batch))

    def loss(self, online: Any, batch: Batch, atoms: Tensor, probs: Tensor | None) -> Loss:
        """How far the predictions are from given targets: atoms [T, B, N] and their probabilities."""
        action = batch.action
        values = online.values_at(batch, slice(0, action.shape[0]))
        error, td_error = online.head.loss(values, action, atoms, probs)  # [T, B]
        if self.td_weight != 1:
            error = self.td_weight * error
        for term in self.terms:
            error = error + term(values, action, batch)
        if error.shape != action.shape or batch.weight.shape not in (action.shape[1:], action.shape):
            raise ValueError(
                f"a loss must be [T, B] and its weight [B] or [T, B], got {tuple(error.shape)} and "
                f"{tuple(batch.weight.shape)} for actions {tuple(action.shape)}"
            )
        error = batch.weight * error
        if batch.weight.ndim == 2:  # what was no decision may name an illegal action: 0 · inf must be 0
            nothing = batch.weight == 0
            error, td_error = error.masked_fill(nothing, 0.0), td_error.masked_fill(nothing, 0.0)
        return Loss(error.mean(), td_error, values.q.detach())

    @torch.no_grad()
    def targets(self, online: Any, target: Any, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The Bellman line; atoms [T, B, N] and their probabilities (None: certain)."""
        length, rows = batch.action.shape[0], batch.bootstrap
        if rows is None:
            rows = slice(batch.obs.shape[0] - batch.burn_in - length, None)
        following = target.values_at(batch, rows)
        backup = self.backup(
            self._returns(following),
            lambda: self._returns(online.values_at(batch, rows)),
            lambda: self._returns(target.values_at(batch, slice(0, length))),
            batch.action,
        )
        future, probs = target.head.mix(following, backup.pi, self.transform.inverse)  # [T, B, N]
        reward, discount = batch.reward + backup.bonus, batch.discount.unsqueeze(-1)
        if isinstance(backup.entropy, Tensor):  # with the reward: a longer return collects it too
            reward = reward + batch.discount * backup.entropy
        if self.lambda_ is not None:
            assert batch.done is not None, "a λ-return needs to know where episodes end"
            value = future.squeeze(-1)
            future = lambda_bootstrap(reward, batch.discount, batch.done, value, self.lambda_).unsqueeze(-1)
        return self.transform(reward.unsqueeze(-1) + discount * future), probs

    def _returns(self, values: Values) -> Values:
        """With q as returns, h⁻¹ of what the network says: policies other than greedy are made of those."""
        return replace(values, q=self.transform.inverse(values.q))
