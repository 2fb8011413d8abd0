"""Heads: how the return is represented and its error measured.

A head is (forward, mix, loss): features → Values; (values, π) → atoms, probs; (values, action, atoms, probs) → error.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from dqn.networks.layers import Linear
from dqn.types import Values


class Expected(nn.Module):
    """The expected return, one number an action: q = W φ + b. Mnih et al. (2015), §Methods.

    `loss`: `huber`, L(δ) = ½δ² for |δ| ≤ κ, κ(|δ| − ½κ) beyond (κ = 1 is DQN's error clipping), or `squared`, ½δ².
    Errors: ValueError for another loss or a κ that is not positive.
    """

    def __init__(
        self,
        features: int,
        num_actions: int,
        loss: str = "huber",
        kappa: float = 1.0,
        layer: Callable[[int, int], nn.Module] = Linear,
    ):
        super().__init__()
        if loss not in ("huber", "squared"):
            raise ValueError(f"head.loss must be 'huber' or 'squared', got {loss!r}")
        if kappa <= 0:
            raise ValueError(f"head.kappa must be > 0, got {kappa}")
        self.kind, self.kappa = loss, float(kappa)
        self.q = layer(features, num_actions)

    def forward(self, features: Tensor) -> Values:
        return Values(self.q(features))

    def mix(self, values: Values, pi: Tensor) -> tuple[Tensor, Tensor | None]:
        """v = Σ_a π(a) q(a): one atom. q, π [..., A] → atoms [..., 1]."""
        if values.q.shape != pi.shape:
            raise ValueError(f"mix wants q and pi of equal shape, got {tuple(values.q.shape)}, {tuple(pi.shape)}")
        return (values.q * pi).sum(-1, keepdim=True), None

    def loss(self, values: Values, action: Tensor, atoms: Tensor, probs: Tensor | None) -> tuple[Tensor, Tensor]:
        """δ = y − q(a). q [T, B, A], action [T, B], atoms [T, B, 1] → loss [T, B], td_error δ [T, B] (detached)."""
        if atoms.shape != (*action.shape, 1) or values.q.shape[:-1] != action.shape:
            raise ValueError(
                f"loss wants atoms [T, B, 1] and q [T, B, A] for actions {tuple(action.shape)}, "
                f"got {tuple(atoms.shape)} and {tuple(values.q.shape)}"
            )
        chosen = values.q.gather(-1, action.unsqueeze(-1)).squeeze(-1)  # [T, B]
        target = atoms.squeeze(-1)
        if self.kind == "huber":
            error = F.huber_loss(chosen, target, reduction="none", delta=self.kappa)
        else:
            error = 0.5 * (chosen - target) ** 2
        return error, (target - chosen).detach()
