"""What the scores of some runs say: interquartile means and their intervals, profiles, probability of improvement.

All of it is of Agarwal et al. (2021), Deep Reinforcement Learning at the Edge of the Statistical Precipice. Intervals
are of 95 %, by the percentile bootstrap, which draws runs anew within each task (stratified); the same scores give the
same numbers.
"""

from collections.abc import Callable, Sequence
from math import nan
from typing import Any

import numpy as np

RESAMPLES = 9999
CURVE_RESAMPLES = 1000  # for each point of a curve or a profile; ours
Interval = tuple[float, float, float]  # the estimate, and the ends of its interval; nan where there is none


def interval(scores: Sequence[float]) -> Interval:
    """The interquartile mean of some scores with the ends of its 95 % bootstrap interval; of equal ones, that score."""
    return over_tasks([np.asarray(scores, float)])


def interquartile_mean(scores: Sequence[np.ndarray]) -> float:
    """Of all scores, which are given task by task [runs]."""
    return float(_iqm(np.concatenate(scores)))


def over_tasks(scores: Sequence[np.ndarray]) -> Interval:
    """The interquartile mean of all scores, which are given task by task [runs]. Where a task has one run alone there
    is no interval, unless all scores are equal."""
    scores = [np.sort(one) for one in scores]  # or their order would matter
    every = np.concatenate(scores)
    middle = float(_iqm(every))
    if len({*every.tolist()}) < 2 or not np.isfinite(every).all():
        return middle, middle, middle
    low, high = _ends(scores, lambda *x, axis: _iqm(np.concatenate(x, axis), axis))
    return middle, float(low), float(high)


def profile(scores: Sequence[np.ndarray], at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The share of runs whose score is above each of `at` [P], averaged over tasks, and the ends of its interval."""
    above = [one[None, :] > at[:, None] for one in scores]  # [P, runs] of each task

    def share(*x: np.ndarray, axis: int) -> Any:
        return np.mean([one.mean(axis) for one in x], 0)

    low, high = _ends([one.astype(float) for one in above], share, CURVE_RESAMPLES)
    middle = share(*above, axis=-1)
    return middle, np.broadcast_to(low, middle.shape), np.broadcast_to(high, middle.shape)


def improvement(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> Interval:
    """How probable it is that a run of the `first` has a higher score than one of the `second`, averaged over tasks;
    equal scores count one half: the statistic of Mann and Whitney (1947)."""
    from scipy import stats  # half a second of import

    count = len(first)

    def probability(*x: np.ndarray, axis: int) -> Any:
        pairs = zip(x[:count], x[count:], strict=True)
        with np.errstate(all="ignore"):  # its p-value, which is not asked for, of scores that are all equal
            found = [
                stats.mannwhitneyu(a, b, axis=axis, method="asymptotic").statistic / (a.shape[axis] * b.shape[axis])
                for a, b in pairs
            ]
        return np.mean(found, 0)

    low, high = _ends([*first, *second], probability, CURVE_RESAMPLES)
    return float(probability(*first, *second, axis=-1)), float(low), float(high)


def curve(
    runs: Sequence[tuple[np.ndarray, np.ndarray]], points: int = 100
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The interquartile mean of curves (steps [N], values [N]) over their runs, at so many steps at most: the steps,
    the mean, and the ends of its interval, nan where there is one run.

    Between two of its points a curve is a straight line. A run counts as far as it goes.
    """
    steps = np.unique(np.concatenate([at for at, _ in runs]))
    if len(steps) > points:
        steps = steps[np.linspace(0, len(steps) - 1, points).round().astype(int)]
    values = np.array([np.interp(steps, at, y, left=nan, right=nan) for at, y in runs]).T  # [P, runs]
    middle, low, high = (np.full(len(steps), nan) for _ in range(3))
    there = ~np.isnan(values)
    for which in np.unique(there[there.any(1)], axis=0):
        rows = (there == which).all(1)
        some = values[rows][:, which]
        middle[rows] = _iqm(some)
        low[rows], high[rows] = _ends([some], _iqm, CURVE_RESAMPLES)
    return steps, middle, low, high


def _iqm(x: np.ndarray, axis: int = -1) -> Any:
    from scipy import stats

    return stats.trim_mean(x, 0.25, axis=axis)


def _ends(samples: Sequence[np.ndarray], statistic: Callable[..., Any], resamples: int = RESAMPLES) -> tuple[Any, Any]:
    """The ends of the interval of `statistic(*samples, axis)`; nan where a sample has one run alone."""
    from scipy import stats

    if min(one.shape[-1] for one in samples) < 2:
        return nan, nan
    found = stats.bootstrap(
        samples, statistic, n_resamples=resamples, rng=0, method="percentile", axis=-1, vectorized=True
    ).confidence_interval
    return found.low, found.high
