"""Backups: which future value stands in at s′.

A backup is (π′, bonus, entropy); the objective then computes, once in the whole program,
`atoms = reward + bonus + discount · (mix(values_next, π′) + entropy)`.

Each takes the target network's q at s′ and a thunk for the online network's, so that a rule which does not
need the online network does not pay for it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dqn.types import Backup


def greedy(q: Tensor) -> Tensor:
    """The greedy policy: all weight on the first maximal action. q [..., A] → π [..., A]."""
    if q.ndim < 1 or not q.is_floating_point():
        raise ValueError(f"greedy wants floating [..., A] values, got {tuple(q.shape)} {q.dtype}")
    return torch.zeros_like(q).scatter_(-1, q.argmax(-1, keepdim=True), 1.0)


def q_learning(target_q: Tensor, online_q: Callable[[], Tensor]) -> Backup:
    """π′ = greedy(q_target): y = r + γ max_a q_target(s′, a). Watkins (1989); Mnih et al. (2015), alg. 1."""
    return Backup(greedy(target_q))


def double_q(target_q: Tensor, online_q: Callable[[], Tensor]) -> Backup:
    """π′ = greedy(q_online): y = r + γ q_target(s′, argmax_a q_online(s′, a)). van Hasselt et al. (2016), eq. 4."""
    q = online_q()
    if q.shape != target_q.shape:
        raise ValueError(f"double_q wants equal shapes, got online {tuple(q.shape)}, target {tuple(target_q.shape)}")
    return Backup(greedy(q))
