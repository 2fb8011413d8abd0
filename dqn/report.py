"""Compare runs: python -m dqn.report RUN [RUN …] prints a table, the best first; out=DIR writes a page of pictures."""

import json
import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from dqn.config.cli import names, plain_options, run_config, say, verb
from dqn.errors import UsageError
from dqn.reports.records import record, runs_below
from dqn.reports.statistics import interval

USAGE = "usage: python -m dqn.report RUN [RUN …] [out=DIR] [by=algorithm]"
OPTIONS = ("out", "by")
HELP = """\
A table of finished runs, the best first, with a column for what they differ in. A directory that holds runs, as that of
a sweep, stands for all of them. A run whose name begins with out= or by= is written ./out=…

  out=DIR  write report.html, one page that needs nothing else, and its pictures as PNGs: learning curves and scores
           with intervals over seeds, profiles, probability of improvement, differences, time, warnings, recordings
  by=KEY   what makes a group of runs on the page, any option: algorithm, n_step, [algorithm,gamma]"""
FIRST = ("algorithm", "env")  # what a table names before anything else


@dataclass
class Finished:
    """A run that has a result."""

    directory: Path
    options: dict[str, str]
    mean: float
    std: float
    seconds: float
    known: tuple[float, float] | None  # max and mean |Q − Q*|, where Q* is known


def read(directory: Path) -> Finished:
    """The run in a directory. Errors: UsageError where it has no result, or one that is damaged."""
    path = directory / "result.json"
    if not path.is_file():
        raise UsageError(f"no finished run lies in {directory}")
    cfg = run_config(directory)
    try:
        result = json.loads(path.read_text())
        evaluation = result["evaluation"] or {"mean": result["training"]["return"], "std": 0.0}
        known = evaluation.get("known_q")
        chosen = {"algorithm": result.get("algorithm"), "env": result.get("env")}
        options = {**chosen, **plain_options(cfg)}
        return Finished(
            directory,
            {name: str(value) for name, value in options.items()},
            _number(evaluation["mean"]),
            _number(evaluation["std"]),
            _number(result["seconds"]),
            None if known is None else (_number(known["max_error"]), _number(known["mean_error"])),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"{path} is damaged ({type(error).__name__}: {' '.join(str(error).split())[:80]})") from error


def _number(value: Any) -> float:
    if value is None:
        return float("nan")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{str(value)[:40]!r} is no number")
    return float(value)


def columns(runs: Sequence[Finished]) -> list[str]:
    """The options in which runs differ; of those that say the same of every run the shortest name, and nothing of a
    part where the part itself differs."""
    names = sorted({name for run in runs for name in run.options}, key=lambda name: (name not in FIRST, len(name)))
    values = {name: tuple(run.options.get(name, "") for run in runs) for name in names}
    first_of: dict[tuple[str, ...], str] = {}
    for name in names:
        parents = [name[:end] for end in range(len(name)) if name[end] == "."]
        if len({*values[name]}) > 1 and not any(len({*values.get(parent, "-")}) > 1 for parent in parents):
            first_of.setdefault(values[name], name)
    return sorted(first_of.values(), key=lambda name: (name not in FIRST, "." in name, name))


def table(directories: Sequence[Path]) -> str:
    """The runs as lines, sorted by |Q − Q*| where Q* is known, else by the mean return of their evaluation.

    There is a column for every option in which the runs differ, as far as a line of the terminal reaches. Where runs
    differ in their seeds, a second table sums them up. Directories without a result are passed over.
    """
    runs = []
    for directory in directories:
        if (directory / "result.json").is_file():
            runs.append(read(directory))
    if not runs:
        return "No finished run (a directory with a result.json) was found."
    known = all(run.known is not None for run in runs)
    runs.sort(key=lambda run: _rank(run.known[0] if known and run.known else -run.mean))
    options = columns(runs)
    heads = [*(("max |Q−Q*|", "mean |Q−Q*|") if known else ()), "return", "±", "seconds", "run"]
    numbers = [
        [
            *(f"{error:.4g}" for error in (run.known if known and run.known else ())),
            f"{run.mean:.4g}",
            f"{run.std:.4g}",
            f"{run.seconds:.1f}",
            run.directory.name,
        ]
        for run in runs
    ]
    shown, left_out = _fitting(options, runs, [heads, *numbers])
    lines = [
        [*shown, *heads],
        *([*(run.options.get(n, "") for n in shown), *n_] for run, n_ in zip(runs, numbers, strict=True)),
    ]
    said = [_aligned(lines)]
    if left_out:
        said.append(textwrap.fill(f"They differ in {', '.join(left_out)}, too.", _width()))
    if "seed" in options:
        said.append(_over_seeds(runs, [name for name in options if name != "seed"], shown))
    return "\n\n".join(said)


def _rank(value: float) -> float:
    return value if isfinite(value) else inf


def _over_seeds(runs: Sequence[Finished], names: Sequence[str], shown: Sequence[str]) -> str:
    """A line for each configuration: mean and standard deviation over its runs, and their interquartile mean with its
    95 % bootstrap interval (Agarwal et al., 2021)."""
    groups: dict[tuple[str, ...], list[Finished]] = {}
    for run in runs:
        groups.setdefault(tuple(run.options.get(name, "") for name in names), []).append(run)
    head = [name for name in shown if name != "seed"]
    lines = [[*head, "runs", "mean return", "±", "IQM", "95 % interval"]]
    for group in sorted(groups.values(), key=lambda group: -fmean(run.mean for run in group)):
        scores = [run.mean for run in group]
        middle, low, high = interval(scores)
        ends = f"{low:.4g} to {high:.4g}" if len(scores) > 1 else "-"
        lines.append(
            [
                *(group[0].options.get(name, "") for name in head),
                str(len(scores)),
                f"{fmean(scores):.4g}",
                f"{pstdev(scores):.4g}",
                f"{middle:.4g}",
                ends,
            ]
        )
    return _aligned(lines)


def _fitting(
    names: Sequence[str], runs: Sequence[Finished], others: Sequence[Sequence[str]]
) -> tuple[list[str], list[str]]:
    """The names whose columns fit into a line of the terminal beside the `others`, and those that do not."""
    room = _width() - sum(max(map(len, column)) + 2 for column in zip(*others, strict=True))
    shown: list[str] = []
    for name in names:
        width = max(len(name), *(len(run.options.get(name, "")) for run in runs)) + 2
        if width <= room:
            shown.append(name)
            room -= width
    return shown, [name for name in names if name not in shown]


def _width() -> int:
    """Of the terminal, in letters."""
    return max(100, shutil.get_terminal_size((160, 24)).columns)


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)) for line in lines)


def report(arguments: list[str]) -> None:
    """The verb: the table, the page where one is asked for, then what is wrong with directories that are in neither
    (exit code 1)."""
    given = {name: value for name, _, value in (a.partition("=") for a in arguments) if name in OPTIONS}
    directories = runs_below([Path(one) for one in arguments if one.partition("=")[0] not in OPTIONS])
    if not directories:
        raise UsageError(f"No run was named; {USAGE}.")
    if given.get("out") == "":
        raise UsageError("out= names no directory: write out=DIR.")
    if "by" in given and "out" not in given:
        raise UsageError("by= groups the runs of a page: name its directory, too, with out=DIR.")
    whole, wrong = _whole(directories)
    if "out" not in given:
        say(table(whole))
        _end(wrong)
    else:
        if whole:
            say(table(whole))
        _end(_page(directories, Path(given["out"]), names("by", given.get("by", ""))))


def _whole(directories: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """The directories of finished runs, and what is wrong with the others."""
    whole, wrong = [], []
    for directory in directories:
        try:
            read(directory)
            whole.append(directory)
        except UsageError as error:
            wrong.append(str(error).rstrip("."))
    return whole, wrong


def _page(directories: Sequence[Path], out: Path, by: Sequence[str]) -> list[str]:
    """Write the page of all runs, finished or not; what is wrong with the directories that hold none."""
    from dqn.reports.comparison import compare
    from dqn.reports.page import write_page

    records, wrong = [], []
    for directory in directories:
        try:
            records.append(record(directory))
        except UsageError as error:
            wrong.append(str(error).rstrip("."))
    if not records:
        raise UsageError(f"{'; '.join(wrong)}: there is nothing to report.")
    page = write_page(compare(records, by), out)
    say(f"\nThe page is {page.resolve()}")
    unfinished = sum(not one.finished for one in records)
    if unfinished:
        say(f"Runs without a result: {unfinished} of {len(records)}; the page says why.")
    return wrong


def _end(wrong: Sequence[str]) -> None:
    if wrong:
        say(f"error: {'; '.join(wrong)}.", sys.stderr)
        sys.exit(1)


def main() -> None:
    verb(report, f"{USAGE}\n\n{HELP}")


if __name__ == "__main__":
    main()
