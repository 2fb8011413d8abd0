"""The pictures of a report, drawn by matplotlib without a window: learning curves, scores, profiles, signals, time."""

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from dqn.errors import UsageError
from dqn.reports.comparison import Comparison
from dqn.reports.records import Record
from dqn.reports.statistics import Interval, curve, profile
from dqn.tracking.logger import STAGES

# Okabe & Ito (2008), colours that colour-blind readers tell apart, the lightest left out
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif", "font.size": 9.5, "axes.spines.top": False, "axes.spines.right": False,
    "axes.edgecolor": "#8a8f98", "axes.labelcolor": "#333a45", "xtick.color": "#59616e", "ytick.color": "#59616e",
    "axes.titlesize": 10.5, "axes.titleweight": "bold", "axes.grid": True, "grid.color": "#e4e7eb",
    "grid.linewidth": 0.8, "axes.axisbelow": True, "legend.frameon": False, "lines.linewidth": 1.8,
    "svg.fonttype": "none", "svg.hashsalt": "dqn", "text.parse_math": False, "figure.dpi": 100, "savefig.dpi": 160,
}  # fmt: skip
STAGE_COLOURS = ("#0072B2", "#56B4E9", "#BBBBBB", "#E69F00", "#D55E00", "#F0C27B", "#7F7F7F", "#009E73", "#CC79A7")
SIGNALS = (
    ("episode/return", "return of training episodes"), ("learner/loss", "loss"), ("learner/q_mean", "mean Q"),
    ("learner/grad_norm", "norm of the gradient"), ("exploration/epsilon", "epsilon"),
    ("speed/env_steps_per_s", "env_steps a second"),
)  # fmt: skip
LONGEST = 44  # letters of a label
INTERVAL = 0.18  # opacity of the band of an interval


@dataclass
class Picture:
    """One figure of the page: `name` of its PNG, what it shows in words, and both forms of it."""

    name: str
    caption: str
    svg: bytes
    png: bytes


@contextmanager
def _style() -> Iterator[Any]:
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("The page of a report needs matplotlib: pip install 'dqn-family[plot]'.") from error
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters of a run's name that the font does not have
        yield Figure


def drawn(name: str, caption: str, size: tuple[float, float], draw: Callable[[Any], bool]) -> Picture | None:
    """The picture that `draw(figure)` makes in a figure of `size` inches; None where it says that there is nothing."""
    with _style() as figure_class:
        figure = figure_class(figsize=size, layout="constrained")
        if not draw(figure):
            return None
        svg, png = io.BytesIO(), io.BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None})
        figure.savefig(png, format="png")
    return Picture(name, caption, svg.getvalue(), png.getvalue())


def pictures(found: Comparison) -> dict[str, Picture]:
    """Every picture that the runs give, by name."""
    tasks, groups = len(found.tasks), len(found.groups)
    pairs = found.improvements()
    wide, rows = (9.6 if tasks < 4 else 12.0), -(-tasks // 3)
    made = [
        drawn("curves", _curves_caption(found), (wide, 3.1 * rows + 0.5), lambda figure: _curves(figure, found)),
        drawn(
            "scores",
            "The score of each run (points), and the interquartile mean of its group with its 95 % interval (bar).",
            (wide, (0.42 * groups + 0.9) * rows),
            lambda figure: _scores(figure, found),
        ),
        drawn(
            "profile",
            "The share of runs whose normalised score is above τ, with 95 % intervals: higher is better everywhere.",
            (4.9, 3.2), lambda figure: _profile(figure, found),
        ),
        drawn(
            "improvement",
            "How probably a run of the first group beats one of the second, with its 95 % interval. Where the interval "
            "holds one half, these runs do not tell which group is better.",
            (4.9, 0.42 * max(1, len(pairs)) + 0.9), lambda figure: _improvement(figure, found, pairs),
        ),
        *(_signals(task, number, found) for number, task in enumerate(found.tasks)),
        drawn(
            "time",
            "Mean seconds of a run by stage.",
            (7.4, 0.42 * groups + 1.3), lambda figure: _time(figure, found),
        ),
    ]  # fmt: skip
    return {picture.name: picture for picture in made if picture is not None}


def label(text: str) -> str:
    """A name as matplotlib shows it: not too long, on one line, and not hidden, as those with an underscore are."""
    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    short = plain if len(plain) <= LONGEST else f"{plain[: LONGEST - 1]}…"
    return f" {short}" if short.startswith("_") else short


def curve_tag(runs: Sequence[Record]) -> str:
    """What learning curves show: evaluations, where some were made on the way, else the episodes of training."""
    longest = max((len(run.curve("evaluation/return")[0]) for run in runs), default=0)
    return "evaluation/return" if longest > 2 else "episode/return"


def _curves_caption(found: Comparison) -> str:
    several = any(len(runs) > 1 for runs in _by_task(found).values())
    tags = {curve_tag([run for run in found.records if run.task == task]) for task in found.tasks}
    what = "greedy evaluations" if tags == {"evaluation/return"} else "episodes of training"
    how = ": interquartile mean over the runs, with its 95 % bootstrap interval" if several else ""
    return f"Mean return of {what} by env_steps{how}."


def _by_task(found: Comparison) -> dict[tuple[str, str], list[Record]]:
    return {
        (name, task): [run for run in runs if run.task == task]
        for name, runs in found.groups.items()
        for task in found.tasks
    }


def _panels(figure: Any, count: int) -> list[Any]:
    """So many axes, three in a row at most."""
    wide = min(count, 3)
    axes = figure.subplots(-(-count // wide), wide, squeeze=False).ravel()
    for spare in axes[count:]:
        spare.remove()
    return [*axes[:count]]


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _legend(figure: Any, axes: Sequence[Any]) -> None:
    """One legend for all panels, above them, where there is more than one group."""
    entries: dict[str, Any] = {}
    for axis in axes:
        entries |= {name: handle for handle, name in zip(*axis.get_legend_handles_labels(), strict=True)}
    if len(entries) > 1:
        figure.legend(entries.values(), entries.keys(), loc="outside upper left", ncols=min(4, len(entries)))


def _curves(figure: Any, found: Comparison) -> bool:
    axes, shown = _panels(figure, len(found.tasks)), False
    for axis, task in zip(axes, found.tasks, strict=True):
        tag = curve_tag([run for run in found.records if run.task == task])
        for number, (name, runs) in enumerate(found.groups.items()):
            lines = [run.curve(tag) for run in runs if run.task == task]
            shown |= _line(axis, [line for line in lines if len(line[0])], _colour(number), label(name))
        axis.set(title=label(task), xlabel="env_steps", ylabel="return")
        axis.xaxis.set_major_formatter(_thousands)
    _legend(figure, axes)
    return shown


def _line(axis: Any, lines: Sequence[tuple[np.ndarray, np.ndarray]], colour: str, name: str) -> bool:
    """The interquartile mean of some curves with its interval, and the curves themselves, faintly."""
    if not lines:
        return False
    at, middle, low, high = curve(lines)
    if len(lines) > 1:
        for x, y in lines:
            axis.plot(x, y, color=colour, alpha=0.22, linewidth=0.8)
        axis.fill_between(at, low, high, color=colour, alpha=INTERVAL, linewidth=0)
    axis.plot(at, middle, color=colour, label=name, marker="o" if len(at) < 2 else None)
    return True


def _thousands(value: float, _: int | None = None) -> str:
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _scores(figure: Any, found: Comparison) -> bool:
    axes, shown = _panels(figure, max(1, len(found.scored))), False
    names = [*found.groups]
    for panel, (axis, task) in enumerate(zip(axes, found.scored, strict=False)):
        for number, name in enumerate(names):
            scores, middle = found.scores(name, task), found.interval(name, task)
            if middle is None:
                continue
            shown = True
            axis.plot(scores, np.full(len(scores), number), "o", color=_colour(number), alpha=0.45, markersize=5)
            axis.plot([middle[0]] * 2, [number - 0.28, number + 0.28], color=_colour(number), linewidth=2.4)
            axis.barh(number, middle[2] - middle[1], 0.44, middle[1], color=_colour(number), alpha=INTERVAL + 0.07)
        axis.set_yticks(range(len(names)), [label(name) for name in names] if panel % 3 == 0 else [])
        axis.set_ylim(len(names) - 0.4, -0.6)
        axis.set(title=label(task), xlabel="return")
    return shown and len(found.records) > 1


def _profile(figure: Any, found: Comparison) -> bool:
    names = found.comparable
    scores = {name: found.normalised(name) for name in names}
    if len(names) < 2 or min(len(one) for some in scores.values() for one in some) < 2:
        return False
    every = np.concatenate([one for some in scores.values() for one in some])
    at = np.linspace(min(0.0, max(float(every.min()), -1.0)), max(1.0, float(every.max())), 101)
    axis = figure.subplots()
    for number, name in enumerate(found.groups):
        if name in scores:
            middle, low, high = profile(scores[name], at)
            axis.plot(at, middle, color=_colour(number), label=label(name), drawstyle="steps-post")
            axis.fill_between(at, low, high, color=_colour(number), alpha=INTERVAL, linewidth=0, step="post")
    axis.set(xlabel="normalised score τ (0 untrained, 1 the best run)", ylabel="share of runs above τ", ylim=(0, 1.02))
    _legend(figure, [axis])
    return True


def _improvement(figure: Any, found: Comparison, pairs: Sequence[tuple[str, str, Interval]]) -> bool:
    if not pairs:
        return False
    axis, colours = figure.subplots(), {name: _colour(number) for number, name in enumerate(found.groups)}
    for row, (first, _, (middle, low, high)) in enumerate(pairs):
        axis.barh(row, high - low, 0.5, low, color=colours[first], alpha=INTERVAL + 0.07)
        axis.plot([middle] * 2, [row - 0.33, row + 0.33], color=colours[first], linewidth=2.4)
    axis.axvline(0.5, color="#8a8f98", linewidth=1, linestyle="--")
    axis.set_yticks(range(len(pairs)), [f"{label(first)} > {label(second)}" for first, second, _ in pairs])
    axis.set(xlim=(-0.02, 1.02), ylim=(len(pairs) - 0.4, -0.6), xlabel="probability of improvement")
    return True


def _signals(task: str, number: int, found: Comparison) -> Picture | None:
    """What training looked like on one task."""

    def draw(figure: Any) -> bool:
        runs = {name: [run for run in some if run.task == task] for name, some in found.groups.items()}
        lines = {
            (tag, name): [line for line in (run.curve(tag) for run in some) if len(line[0])]
            for tag, _ in SIGNALS
            for name, some in runs.items()
        }
        shown = [(tag, words) for tag, words in SIGNALS if any(lines[tag, name] for name in runs)]
        if not shown:
            return False
        axes = _panels(figure, len(shown))
        for axis, (tag, words) in zip(axes, shown, strict=True):
            for colour, name in enumerate(runs):
                _line(axis, lines[tag, name], _colour(colour), label(name))
            axis.set(title=words)
            axis.title.set_fontweight("normal")
            axis.xaxis.set_major_formatter(_thousands)
        _legend(figure, axes)
        return True

    name = "signals" if len(found.tasks) == 1 else f"signals-{number + 1}"
    return drawn(name, f"What training on {label(task)} looked like, by env_steps.", (9.6, 4.4), draw)


def _time(figure: Any, found: Comparison) -> bool:
    means = {
        name: {stage: float(np.mean([run.seconds()[stage] for run in runs])) for stage in STAGES}
        for name, runs in found.groups.items()
    }
    if not any(sum(stages.values()) for stages in means.values()):
        return False
    axis, left = figure.subplots(), np.zeros(len(means))
    for stage, colour in zip(STAGES, STAGE_COLOURS, strict=True):
        seconds = np.array([stages[stage] for stages in means.values()])
        if seconds.sum() > 0.005 * sum(sum(stages.values()) for stages in means.values()):
            axis.barh(range(len(means)), seconds, 0.6, left, color=colour, label=stage)
            left += seconds
    axis.set_yticks(range(len(means)), [label(name) for name in means])
    axis.set(xlabel="seconds", ylim=(len(means) - 0.4, -0.6))
    axis.grid(axis="y", visible=False)
    figure.legend(loc="outside upper left", ncols=len(STAGES))
    return True
