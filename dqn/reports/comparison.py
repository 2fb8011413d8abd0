"""Which runs are compared with which: groups of equal configurations, tasks, and their scores on one scale."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np

from dqn.config.cli import nearest
from dqn.errors import UsageError
from dqn.reports.records import Record
from dqn.reports.statistics import Interval, improvement, interquartile_mean, interval

APART = ("seed", "env", "task_name", "tags", "device")  # options in which runs of one group may differ
NOTHING = "–"


@dataclass
class Comparison:
    """Records in groups, by name and best first, and the tasks they were trained on."""

    records: list[Record]
    by: list[str]  # the options whose values make a group
    groups: dict[str, list[Record]]
    tasks: list[str]

    def scores(self, group: str, task: str) -> np.ndarray:
        """The scores of a group's finished runs on a task."""
        found = [run.score for run in self.groups[group] if run.finished and run.task == task]
        return np.array([score for score in found if isfinite(score)])

    def interval(self, group: str, task: str) -> Interval | None:
        """The interquartile mean of a group on a task, where it has finished runs there."""
        scores = self.scores(group, task)
        return interval(scores.tolist()) if len(scores) else None

    def scale(self, task: str) -> tuple[float, float]:
        """The two returns of a task that 0 and 1 stand for: of the untrained networks, the evaluation at step 0 (or,
        where there was none, of the worst run), and of the best run."""
        runs = [run for run in self.records if run.task == task]
        firsts = [y[0] for x, y in (run.curve("evaluation/return") for run in runs) if len(x) and x[0] == 0]
        scores = np.concatenate([self.scores(group, task) for group in self.groups])
        low = float(np.mean(firsts)) if firsts else float(scores.min())
        return low, float(scores.max())

    @property
    def scored(self) -> list[str]:
        """The tasks that have finished runs."""
        return [task for task in self.tasks if any(len(self.scores(name, task)) for name in self.groups)]

    def normalised(self, group: str) -> list[np.ndarray]:
        """A group's scores on each task that has any, on the scale of the task."""
        found = []
        for task in self.scored:
            low, high = self.scale(task)
            found.append((self.scores(group, task) - low) / ((high - low) if high > low else 1.0))
        return found

    @property
    def comparable(self) -> list[str]:
        """The groups that have finished runs wherever others have, the best first."""
        tasks = self.scored
        whole = [name for name in self.groups if tasks and all(len(self.scores(name, task)) for task in tasks)]
        return sorted(whole, key=lambda name: -interquartile_mean(self.normalised(name)))

    def improvements(self, most: int = 10) -> list[tuple[str, str, Interval]]:
        """How probably a better group beats a worse one: all pairs, or, of many groups, the best beside the others."""
        names = self.comparable
        pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
        pairs = pairs if len(pairs) <= most else [(names[0], b) for b in names[1 : most + 1]]
        scores = {name: self.normalised(name) for name in names}
        return [(a, b, improvement(scores[a], scores[b])) for a, b in pairs]

    def differences(self) -> list[tuple[str, list[str]]]:
        """The options in which groups differ, each with a value for every group; several values where its runs differ
        among themselves."""
        names = sorted({name for run in self.records for name in run.options} - {"seed"})
        names.sort(key=lambda name: name != "algorithm")
        rows = []
        for name in names:
            values = [" | ".join(_values(runs, name)) for runs in self.groups.values()]
            if len({*values}) > 1:
                rows.append((name, values))
        return rows


def compare(records: Sequence[Record], by: Sequence[str] = ()) -> Comparison:
    """The records in groups: `by` the values of these options, or by those that tell them apart within a task.

    Errors: UsageError where no run has such an option.
    """
    known = sorted({name for run in records for name in run.options})
    for name in by:
        if name not in known:
            raise UsageError(f"by={name}: no run has this option{nearest(name, known)}.")
    tasks = [*dict.fromkeys(run.task for run in records)]
    chosen = [*by] or _telling_apart(records, known)
    groups: dict[str, list[Record]] = {}
    for run in records:
        groups.setdefault(_label(run, chosen), []).append(run)
    made = Comparison([*records], chosen, groups, tasks)
    order = made.comparable
    rest = [name for name in groups if name not in order]
    made.groups = {name: groups[name] for name in [*order, *rest]}
    return made


def _telling_apart(records: Sequence[Record], known: Sequence[str]) -> list[str]:
    """As few options as possible that split the runs of each task as all options do."""
    names = [name for name in known if name not in APART and not name.startswith(("env.", "tracking.", "execution."))]
    names.sort(key=lambda name: (name != "algorithm", name.startswith("tuned."), "." in name, len(name)))
    chosen: list[str] = ["algorithm"] if "algorithm" in known else []
    for name in names:
        if len(_parts(records, [*chosen, name])) > len(_parts(records, chosen)):
            chosen.append(name)
    needed = [name for name in chosen if len({run.options.get(name) for run in records}) > 1]
    return needed or chosen[:1]


def _parts(records: Sequence[Record], names: Sequence[str]) -> set[tuple[str | None, ...]]:
    return {(run.task, *(run.options.get(name) for name in names)) for run in records}


def _label(run: Record, names: Sequence[str]) -> str:
    """`rainbow`, or `rainbow, n_step=3`: of the algorithm the value says enough."""
    words = [
        run.options.get(name, NOTHING) if name == "algorithm" else f"{name}={run.options.get(name, NOTHING)}"
        for name in names
    ]
    return ", ".join(words) or "all runs"


def _values(runs: Sequence[Record], name: str, most: int = 6) -> list[str]:
    found = [*dict.fromkeys(run.options.get(name, NOTHING) for run in runs)]
    return [*found[:most], "…"] if len(found) > most else found
