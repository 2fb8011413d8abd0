"""What a batch tells: that Q cannot be true, that the head cannot say more, that what is observed is far too large."""

import logging
from typing import Any

import torch

log = logging.getLogger("dqn")


FAR = 100.0  # what is observed in classic control stays below 30; ours


class Watch:
    """Warns, once each, of observations far from the scale on which networks learn, of Q above every possible return,
    max|r| / (1 − γ), and of Q at an end of a histogram."""

    def __init__(self, learner: Any, gamma: float):
        objective, self.gamma = learner.objective, gamma
        self.transform, self.bounds = objective.transform, getattr(learner.online.head, "bounds", None)
        self.entropic = "temperature" in getattr(objective.backup, "keywords", {})  # entropy is worth something, too
        self.warned: set[str] = set()

    def __call__(self, q_max: float, largest_reward: float, seen: tuple[str, float] = ("", 0.0)) -> None:
        """Look at the largest Q, the largest |reward|, and the largest |number| that the torso sees, with its entry."""
        entry, size = seen
        if size > FAR:
            what = f"The entry `{entry}` of the observation" if entry else "The observation"
            self._once(
                f"{what} reaches {size:.3g}, and networks learn from numbers near 1 (Q is {q_max:.3g}): set "
                "normalizer=running, or scale it in the environment.", "scale",
            )  # fmt: skip
        bound = largest_reward / (1 - self.gamma) if self.gamma < 1 else float("inf")
        bound = float(self.transform(torch.tensor(bound)))  # of what the network says
        known = largest_reward > 0  # before the first reward any return is possible
        if known and q_max > bound * 1.01 + 1e-6 and not self.entropic and size <= FAR:
            self._once(
                f"Q has grown to {q_max:.4g}, above the largest possible return {bound:.4g} = max|r|/(1−γ) with the "
                "rewards so far: it is overestimating; try backup=double_q, a lower optimizer.lr or a longer "
                "target.period.", "large",
            )  # fmt: skip
        if self.bounds is None:
            return
        low, high = self.bounds
        margin = 0.02 * (high - low)
        if not low + margin < q_max < high - margin:
            self._once(
                f"Q is {q_max:.4g}, at the end of what the head says: let tuned.v_min={low:g} and tuned.v_max={high:g} "
                "hold all returns.", "bounds",
            )  # fmt: skip

    def _once(self, sentence: str, kind: str) -> None:
        if kind not in self.warned:
            self.warned.add(kind)
            log.warning("%s", sentence)
