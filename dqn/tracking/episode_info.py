"""Values of the environments' info that `tracking.info` names, at the last step of each episode."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from dqn.types import Rows

log = logging.getLogger("dqn")


class EpisodeInfo:
    """Gathers the named values of the episodes that end, between two lines of the log."""

    def __init__(self, names: Sequence[str]):
        self.names = names
        self.ended: list[np.ndarray] = []  # a row [I] for each episode since the last reading, NaN where it gave none
        self.silent = {*names}  # names that no episode has given yet, and of which that was not said yet

    def note(self, rows: Rows) -> None:
        """Note the episodes that end in a block of rows."""
        if rows.episode_info is not None:
            self.ended += list(np.asarray(rows.episode_info)[np.asarray(rows.terminated) | np.asarray(rows.truncated)])

    def read(self) -> dict[str, float]:
        """The mean of each value over the episodes since the last reading, by tag; what none gave is said once."""
        found = {name: episode_info["mean"] for name, episode_info in summary(self.names, self.ended).items()}
        given = {name for name, mean in found.items() if mean is not None}
        if self.ended and (missing := sorted(self.silent - given)):
            log.warning(
                "tracking.info names %s, and no episode so far has ended with such a number in its info: look what the "
                "environment gives at the last step of an episode.", ", ".join(missing),
            )  # fmt: skip
            self.silent = set()
        self.silent -= given
        self.ended = []
        return {f"info/{name}": found[name] for name in given}


def summary(names: Sequence[str], ended: Sequence[np.ndarray]) -> dict[str, dict[str, Any]]:
    """Of each name the mean over the episodes that gave it, and the value of each episode; None where there is none."""
    columns = np.array(ended, np.float64).reshape(len(ended), len(names)).T  # [I, episodes]
    episode_info = {}
    for name, column in zip(names, columns, strict=True):
        known = column[~np.isnan(column)]
        values = [None if np.isnan(value) else float(value) for value in column]
        episode_info[name] = {"mean": float(known.mean()) if known.size else None, "values": values}
    return episode_info
