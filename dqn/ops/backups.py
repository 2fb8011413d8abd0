"""Backups: which future value stands in at s′.

A backup is (π′, bonus, entropy); the objective then computes, once in the whole program,
`atoms = reward + bonus + discount · (mix(values_next, π′) + entropy)`.

Each takes the target network's values at s′, thunks for the online network's at s′ and the target network's at s, so
that a rule which does not need them does not pay for them, and the action taken at s. Illegal actions have
q = ILLEGAL: they are never greedy and weigh nothing in a softmax.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from dqn.types import ILLEGAL, Backup, Values

Thunk = Callable[[], Values]


def greedy(q: Tensor) -> Tensor:
    """The greedy policy: all weight on the first maximal action. q [..., A] → π [..., A]."""
    if q.ndim < 1 or not q.is_floating_point():
        raise ValueError(f"greedy wants floating [..., A] values, got {tuple(q.shape)} {q.dtype}")
    return torch.zeros_like(q).scatter_(-1, q.argmax(-1, keepdim=True), 1.0)


def softmax(q: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """π = softmax(q/τ) and τ·log π, both [..., A]; in the form that does not overflow for small τ."""
    if temperature <= 0:
        raise ValueError(f"backup.temperature must be > 0, got {temperature}")
    scaled = q - q.amax(-1, keepdim=True)  # ≤ 0
    log_pi = scaled - temperature * torch.logsumexp(scaled / temperature, -1, keepdim=True)
    return torch.exp(log_pi / temperature), log_pi


def log_prior(values: Values) -> Tensor:
    """log π0 [..., A] of the given policy over the legal actions, so that Σ_a π0(a) = 1.

    Errors: ValueError where the environment gives no policy.
    """
    if values.prior is None:
        raise ValueError("a policy is guided where one is given: choose env=lm, or another backup and exploration")
    prior = values.prior if values.mask is None else values.prior.masked_fill(~values.mask, ILLEGAL)
    return prior.log_softmax(-1)


def q_learning(following: Values, online: Thunk, here: Thunk, action: Tensor) -> Backup:
    """π′ = greedy(q_target): y = r + γ max_a q_target(s′, a). Watkins (1989); Mnih et al. (2015), alg. 1."""
    return Backup(greedy(following.q))


def double_q(following: Values, online: Thunk, here: Thunk, action: Tensor) -> Backup:
    """π′ = greedy(q_online): y = r + γ q_target(s′, argmax_a q_online(s′, a)). van Hasselt et al. (2016), eq. 4."""
    q = online().q
    if q.shape != following.q.shape:
        raise ValueError(f"double_q wants equal shapes, got online {tuple(q.shape)}, target {tuple(following.q.shape)}")
    return Backup(greedy(q))


def expected_sarsa(following: Values, online: Thunk, here: Thunk, action: Tensor, epsilon: float = 0.1) -> Backup:
    """π′ = ε-greedy(q_target) over the legal actions: y = r + γ Σ_a π′(a) q_target(s′, a). van Seijen et al. (2009).

    Errors: ValueError for ε outside [0, 1].
    """
    if not 0 <= epsilon <= 1:
        raise ValueError(f"backup.epsilon must be in [0, 1], got {epsilon}")
    q = following.q
    legal = torch.ones_like(q) if following.mask is None else following.mask.to(q.dtype)
    return Backup((1 - epsilon) * greedy(q) + epsilon * legal / legal.sum(-1, keepdim=True))


def soft(following: Values, online: Thunk, here: Thunk, action: Tensor, temperature: float = 0.03) -> Backup:
    """π′ = softmax(q_target/τ), entropy −τ Σ π′ log π′: y = r + γ τ log Σ_a exp(q_target(s′, a)/τ).

    Haarnoja et al. (2017), eq. 5 and 7. Errors: ValueError for τ that is not positive.
    """
    pi, log_pi = softmax(following.q, temperature)
    return Backup(pi, 0.0, -(pi * log_pi).sum(-1))


def munchausen(
    following: Values,
    online: Thunk,
    here: Thunk,
    action: Tensor,
    scale: float = 0.9,
    temperature: float = 0.03,
    floor: float = -1.0,
) -> Backup:
    """The soft backup with a bonus, scale · max(τ log π(a|s), floor), π = softmax(q_target(s, ·)/τ).

    Vieillard, Pietquin & Geist (2020), eq. 2 and §4 (floor: their l₀). action [T, B] → bonus [T, B].
    Errors: ValueError for τ that is not positive.
    """
    following_soft = soft(following, online, here, action, temperature)
    _, log_pi = softmax(here().q, temperature)
    taken = log_pi.gather(-1, action.unsqueeze(-1)).squeeze(-1)
    return Backup(following_soft.pi, scale * taken.clamp(min=floor), following_soft.entropy)


def kl_soft(following: Values, online: Thunk, here: Thunk, action: Tensor, temperature: float = 0.1) -> Backup:
    """π′ = π0 exp(q_target/τ) / Z, entropy −τ KL(π′ ‖ π0): y = r + γ τ log Σ_a π0(a|s′) exp(q_target(s′, a)/τ).

    π0 is the policy that the environment gives (types.PRIOR). With a uniform π0 it is the soft backup less τ log A.
    Todorov (2006); Azar et al. (2012), dynamic policy programming; of language models Jaques et al. (2017), eq. 8.
    Errors: ValueError for τ that is not positive, or where no policy is given.
    """
    if temperature <= 0:
        raise ValueError(f"backup.temperature must be > 0, got {temperature}")
    prior = log_prior(following)
    pi, log_pi = softmax(following.q + temperature * prior, temperature)  # log_pi = τ log π′
    divergence = (pi * (log_pi - temperature * prior)).sum(-1)  # τ KL
    return Backup(pi, 0.0, -divergence)
