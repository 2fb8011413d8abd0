"""Returns: how far to look before bootstrapping."""

import torch
from torch import Tensor


def n_step(reward: Tensor, terminated: Tensor, done: Tensor, gamma: float) -> tuple[Tensor, Tensor, Tensor]:
    """Fold a window of n rows into one return that stops at the first episode's end inside it.

    G = Σ_{i<k} γⁱ r_{t+i},  discount = γᵏ · (1 − terminated_{t+k−1}),  k = rows up to and with the first end.

    reward, terminated, done: [n, B] (`done` = terminated or truncated). Returns G [B], discount [B] and
    k [B] int64, the offset of the observation to bootstrap from. A truncated window keeps its bootstrap, with
    the power of γ it really has. Sutton & Barto (2018), §7.1; Pardo et al. (2018), §2, for time limits.
    """
    if reward.ndim != 2 or reward.shape != terminated.shape or reward.shape != done.shape:
        raise ValueError(
            f"n_step wants three [n, B] tensors, got {[*map(tuple, (reward.shape, terminated.shape, done.shape))]}"
        )
    n = reward.shape[0]
    if n == 1:
        discount = gamma * (~terminated[0]).to(reward.dtype)
        return reward[0], discount, torch.ones_like(terminated[0], dtype=torch.int64)
    ended = torch.cumsum(done, 0)  # [n, B] ends up to and with each row
    alive = (ended - done.to(ended.dtype)) == 0  # [n, B] the row belongs to the window
    k = alive.sum(0)  # [B]
    powers = gamma ** torch.arange(n + 1, device=reward.device, dtype=reward.dtype)  # [n+1]
    total = (reward * alive * powers[:n, None]).sum(0)  # [B]
    discount = powers[k] * (~(terminated & alive).any(0)).to(reward.dtype)  # [B]
    return total, discount, k


def lambda_bootstrap(
    reward: Tensor, discount: Tensor, done: Tensor, value_next: Tensor, lambda_: float | Tensor
) -> Tensor:
    """What stands after each row's reward when n-step returns of every length are mixed, from the last row backwards.

    F_t = (1 − λ_t) · v(s′_t) + λ_t · (r_{t+1} + discount_{t+1} · F_{t+1}),  with λ_t = 0 at an episode's end and at
    the last row, where only the bootstrap is left; the λ-return itself is G_t = r_t + discount_t · F_t.

    All [T, B]; `value_next[t]` is the value of the true next observation of row t, `discount` is γ·(1−terminated).
    Returns F [T, B]. Sutton & Barto (2018), eq. 12.18–12.20; Gallici et al. (2024), PQN, §4.
    """
    shapes = {tuple(x.shape) for x in (reward, discount, done, value_next)}
    if reward.ndim != 2 or len(shapes) != 1:
        raise ValueError(f"lambda_bootstrap wants four [T, B] tensors, got shapes {sorted(shapes)}")
    last = reward.shape[0] - 1
    following = torch.empty_like(value_next)
    following[last] = value_next[last]
    trace = lambda_ * (~done).to(reward.dtype)  # [T, B]
    for t in range(last - 1, -1, -1):
        longer = reward[t + 1] + discount[t + 1] * following[t + 1]
        following[t] = torch.lerp(value_next[t], longer, trace[t])
    return following
