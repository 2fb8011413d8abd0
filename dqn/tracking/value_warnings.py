"""Warnings about the values that are learnt: they cannot be true, the head cannot represent them, or the observations
are far too large."""

import logging
from typing import Any

import torch

log = logging.getLogger("dqn")


LARGE_OBSERVATION = 100.0  # observations of classic control stay below 30; ours
MARGIN = 1.2  # how far Q may lie above the largest possible return. Max over noisy values overestimates somewhat in
# healthy runs: the default run reads 101 of 100 and ends at the optimum. Thrun & Schwartz (1993); the number is ours.
PERSISTENCE = 3  # readings one after another before a warning: one batch alone tells little; ours


class ValueWarnings:
    """Warns once about each of three signs, in readings at logging cadence.

    Observations far from the scale on which networks learn; Q above `MARGIN` times every possible return,
    max|r| / (1 − γ), in `PERSISTENCE` readings one after another; and Q at an edge of a histogram's support, as often.
    """

    def __init__(self, learner: Any, gamma: float):
        objective, self.gamma = learner.objective, gamma
        self.transform, self.bounds = objective.transform, getattr(learner.online.head, "bounds", None)
        self.entropic = "temperature" in getattr(objective.backup, "keywords", {})  # entropy is part of these returns
        self.readings: dict[str, int] = {}  # how many readings in a row showed each sign
        self.warned: set[str] = set()

    def read(self, q_max: float, largest_reward: float, observation: tuple[str, float] = ("", 0.0)) -> None:
        """Take one reading: the largest Q, the largest |reward|, and the largest |number| observed, with its entry."""
        entry, size = observation
        what = f"The entry `{entry}` of the observation" if entry else "The observation"
        self._note("observation", size > LARGE_OBSERVATION, 1, (
            f"{what} reaches {size:.3g}, and networks learn from numbers near 1 (Q is {q_max:.3g}): set "
            "normalizer=running, or scale it in the environment."
        ))  # fmt: skip
        bound = largest_reward / (1 - self.gamma) if self.gamma < 1 else float("inf")
        bound = float(self.transform(torch.tensor(bound)))  # the network's values are transformed
        known = largest_reward > 0  # before the first reward any return is possible
        above = known and q_max > bound * MARGIN + 1e-6 and not self.entropic and size <= LARGE_OBSERVATION
        self._note("overestimation", above, PERSISTENCE, (
            f"Q has grown to {q_max:.4g}, well above the largest possible return {bound:.4g} = max|r|/(1−γ) with the "
            "rewards so far: it is overestimating; try backup=double_q, a lower optimizer.lr or a longer target.period."
        ))  # fmt: skip
        if self.bounds is None:
            return
        low, high = self.bounds
        edge = 0.02 * (high - low)
        self._note("support", not low + edge < q_max < high - edge, PERSISTENCE, (
            f"The largest Q, {q_max:.4g}, lies at the edge of the head's support: widen tuned.v_min={low:g} and "
            f"tuned.v_max={high:g} until they hold all returns."
        ))  # fmt: skip

    def _note(self, sign: str, shown: bool, persistence: int, sentence: str) -> None:
        """Count a reading that shows a sign; warn where enough of them followed one another."""
        self.readings[sign] = self.readings.get(sign, 0) + 1 if shown else 0
        if self.readings[sign] >= persistence and sign not in self.warned:
            self.warned.add(sign)
            log.warning("%s", sentence)
