"""Evaluation: whole episodes with raw rewards in environments of its own, changing nothing in the run."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from dqn.types import UsageError


def play(actor: Any, envs: Any, episodes: int, seed: int) -> dict:
    """Play exactly `episodes` whole episodes; environment e plays numbers e, e+E, … so short ones are not preferred.

    Returns mean, std, every return and length. Errors: UsageError when `episodes` is not positive.
    """
    if episodes < 1:
        raise UsageError(f"an evaluation needs episodes ≥ 1, got {episodes}.")
    count = envs.num_envs
    owed = np.array([len(range(e, episodes, count)) for e in range(count)])  # [E]
    returns, lengths = np.zeros(count), np.zeros(count, np.int64)
    games: list[list[tuple[float, int]]] = [[] for _ in range(count)]
    obs = envs.reset(seed)
    while any(len(games[e]) < owed[e] for e in range(count)):
        step = envs.step(actor.act(obs, 0))
        actor.forget(step.begins)
        returns += step.reward
        lengths += ~step.reset
        for e in (step.terminated | step.truncated).nonzero()[0]:
            games[e].append((float(returns[e]), int(lengths[e])))
            returns[e], lengths[e] = 0.0, 0
        obs = step.obs
    played = [games[i % count][i // count] for i in range(episodes)]
    scores = np.array([score for score, _ in played])
    return {
        "episodes": episodes,
        "mean": float(scores.mean()),
        "std": float(scores.std()),
        "returns": scores.tolist(),
        "lengths": [length for _, length in played],
        "seed": seed,
    }


@torch.no_grad()
def known_values(
    network: nn.Module, optimal: np.ndarray, device: torch.device, gamma: float, transform: Any
) -> dict[str, float]:
    """Distance to a known Q* [S, A] over all states where it is defined: max |Q − Q*|, mean |Q − Q*|, and Q*'s range
    to judge them by. Where the network learns h(Q), `transform` is h."""
    known = torch.from_numpy(~np.isnan(optimal)).to(device)
    q = transform.inverse(network(torch.arange(len(optimal), device=device), known).q).cpu().numpy()
    error = np.abs(q - optimal)
    return {
        "max_error": float(np.nanmax(error)),
        "mean_error": float(np.nanmean(error)),
        "range": float(np.nanmax(optimal) - np.nanmin(optimal)),
        "gamma": gamma,
    }
