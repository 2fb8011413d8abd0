"""Terms: what may be added to the temporal-difference loss.

term(values, action [T, B], batch) → [T, B], its weight in it.
"""

from typing import Any

import torch
from torch import Tensor

from dqn.ops.backups import log_prior
from dqn.types import Batch, Values


class _Term:
    def __init__(self, weight: float, temperature: float = 1.0):
        if weight < 0:
            raise ValueError(f"weight must be ≥ 0, got {weight}")
        if temperature <= 0:
            raise ValueError(f"temperature must be > 0, got {temperature}")
        self.weight, self.temperature = weight, temperature


class Conservative(_Term):
    """Pushes the values of all actions down and that of the action in the data up, CQL(H),

    weight · (temperature · log Σ_legal exp(q(s, a′) / temperature) − q(s, a)) ≥ 0.

    values.q [T, B, A], ILLEGAL where an action may not be taken, so that it has no share in the sum. Errors: ValueError
    for shapes, a negative weight or a temperature that is not positive. Kumar et al. (2020), eq. 4.
    """

    def __call__(self, values: Values, action: Tensor, batch: Batch | None = None) -> Tensor:
        q = _checked(values, action)
        return self.weight * (self.temperature * (q / self.temperature).logsumexp(-1) - _of(q, action))


class Cloning(_Term):
    """The policy softmax(q / temperature) imitates the data, −weight · log softmax(q(s, ·) / temperature)[a]; where the
    environment gives a policy π0, as a language model, π0 exp(q / temperature) does.

    values.q [T, B, A], ILLEGAL where an action may not be taken. Errors: as for Conservative. Pomerleau (1991); as a
    term beside Q-learning it is 1 / temperature times the conservative one.
    """

    def __call__(self, values: Values, action: Tensor, batch: Batch | None = None) -> Tensor:
        logits = _checked(values, action) / self.temperature
        if values.prior is not None:
            logits = logits + log_prior(values)
        return -self.weight * _of(logits.log_softmax(-1), action)


class Distillation(_Term):
    """The policy softmax(q) imitates that of a teacher, whatever action the data took,

    weight · KL(softmax(q_teacher / temperature) ‖ softmax(q)) ≥ 0.

    `teacher` has values_at(batch, rows), as networks.qnetwork.QNetwork, and is not changed. values.q [T, B, A], ILLEGAL
    where an action may not be taken. What is learnt are preferences, not returns. With td_weight above 0 it stands
    beside Q-learning. Errors: as for Conservative. Rusu et al. (2016), Policy Distillation, eq. 3.
    """

    def __init__(self, teacher: Any, weight: float, temperature: float = 0.01):
        super().__init__(weight, temperature)
        self.teacher = teacher

    def __call__(self, values: Values, action: Tensor, batch: Batch) -> Tensor:
        q = _checked(values, action)
        with torch.no_grad():
            taught = self.teacher.values_at(batch, slice(0, action.shape[0])).q / self.temperature
            pi = taught.softmax(-1)
        return self.weight * (torch.xlogy(pi, pi) - pi * q.log_softmax(-1)).sum(-1)


def _of(table: Tensor, action: Tensor) -> Tensor:
    return table.gather(-1, action.unsqueeze(-1)).squeeze(-1)


def _checked(values: Values, action: Tensor) -> Tensor:
    if action.ndim != 2 or values.q.ndim != 3 or values.q.shape[:2] != action.shape:
        raise ValueError(f"a term takes q [T, B, A] and actions [T, B], got {[*values.q.shape]} and {[*action.shape]}")
    return values.q
