"""Evaluation: whole episodes with raw rewards in environments of its own, changing nothing in the run."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from dqn.errors import UsageError


def play(
    actor: Any,
    envs: Any,
    episodes: int,
    seed: int,
    cap: float = float("inf"),
    stop: Callable[[], bool] = bool,
    progress: Callable[[int, int], None] | None = None,
) -> dict:
    """Play exactly `episodes` whole episodes; environment e plays numbers e, e+E, … so short ones are not preferred.

    An episode of `cap` decisions counts as it is, and its environment, which goes on, plays no more. `progress` is told
    at every tick how many episodes have been played, and decisions. Returns mean, std, every return and length, and how
    many episodes were as long as the cap, and what each episode's info told; fewer, and no mean of none, where `stop()`
    says to.
    Errors: UsageError when `episodes` is not positive.
    """
    if episodes < 1:
        raise UsageError(f"an evaluation needs episodes ≥ 1, got {episodes}.")
    count = envs.num_envs
    owed = np.array([len(range(e, episodes, count)) for e in range(count)])  # [E]
    returns, lengths = np.zeros(count), np.zeros(count, np.int64)
    games: list[list[tuple[float, int, Any]]] = [[] for _ in range(count)]  # return, length and what its info told
    obs = envs.reset(seed)
    retired = np.zeros(count, bool)
    ended = decisions = 0
    while any(len(games[e]) < owed[e] and not retired[e] for e in range(count)) and not stop():
        step = envs.step(actor.act(obs, 0))
        actor.forget(step.begins)
        returns += step.reward
        lengths += ~step.reset
        decisions += count - int(np.count_nonzero(step.reset))
        capped = (lengths >= cap) & ~(step.terminated | step.truncated) & ~retired
        for e in ((step.terminated | step.truncated | capped) & ~retired).nonzero()[0]:
            ended += int(len(games[e]) < owed[e])
            games[e].append(
                (float(returns[e]), int(lengths[e]), None if step.episode_info is None else step.episode_info[e])
            )
            returns[e], lengths[e] = 0.0, 0
        retired |= capped
        obs = step.obs
        if progress is not None:
            progress(ended, decisions)
    order = [(i % count, i // count) for i in range(episodes)]
    played = [games[e][i] for e, i in order if i < len(games[e])]
    scores = np.array([score for score, *_ in played])
    return {
        "episodes": len(played),
        "mean": float(scores.mean()) if played else float("nan"),
        "std": float(scores.std()) if played else float("nan"),
        "returns": scores.tolist(),
        "lengths": [length for _, length, _ in played],
        "capped": sum(length >= cap for _, length, _ in played),
        "episode_info": [episode_info for *_, episode_info in played if episode_info is not None],
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
