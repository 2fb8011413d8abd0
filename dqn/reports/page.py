"""The page of a report: one HTML file that needs nothing else, in which whatever comes from a run is shown as text.

The template escapes every value (Jinja's autoescape), pictures are images apart from the page, and the page's own
Content-Security-Policy allows neither a script nor a request.
"""

import base64
import re
from collections.abc import Sequence
from datetime import datetime
from math import isfinite
from pathlib import Path
from typing import Any

from dqn import __version__
from dqn.errors import UsageError
from dqn.reports.comparison import Comparison
from dqn.reports.figures import COLOURS, pictures
from dqn.reports.records import MEDIA, Record
from dqn.reports.statistics import Interval, over_tasks
from dqn.tracking.checkpoint import write_bytes, write_text

PAGE, TEMPLATE = "report.html", Path(__file__).with_name("page.html")
NUMBER = re.compile(r"-?\d+(?:[.,]\d+)*(?:e[+-]?\d+)?")
LARGEST = 16 * 2**20  # bytes of a recording that the page holds; a larger one is named
MACHINE = {"cpu": "processor", "cores": "cores", "memory_gb": "GB of memory", "gpu": "GPU", "system": "system"}


def write_page(found: Comparison, directory: Path) -> Path:
    """Write the page and its pictures as PNGs to a directory. Errors: UsageError where a package for it is missing."""
    made = pictures(found)
    directory.mkdir(parents=True, exist_ok=True)
    for name, picture in made.items():
        write_bytes(directory / f"{name}.png", picture.png)
    shown = {name: {"caption": p.caption, "source": _embedded(p.svg, "image/svg+xml")} for name, p in made.items()}
    write_text(directory / PAGE, _rendered(pictures=shown, **facts(found)))
    return directory / PAGE


def _rendered(**values: Any) -> str:
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise UsageError("The page of a report needs jinja2: pip install 'dqn-family[plot]'.") from error
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(**values)


def _embedded(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def facts(found: Comparison) -> dict[str, Any]:
    """All that the template shows, as plain values."""
    records = found.records
    return {
        "title": _title(found),
        "version": __version__,
        "now": f"{datetime.now():%Y-%m-%d %H:%M}",
        "single": records[0].name if len(records) == 1 else None,
        "by": ", ".join(found.by) or "nothing",
        "tiles": _tiles(found),
        "trouble": _trouble(records),
        "troubled": [(run.name, run.state, run.said) for run in records if not run.finished],
        "groups": [*found.groups],
        "colours": {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(found.groups)},
        "tasks": found.tasks,
        "scores": _scores(found),
        "scales": [(task, *map(number, found.scale(task))) for task in found.scored],
        "differences": [row for row in found.differences() if "." not in row[0]],
        "details": [row for row in found.differences() if "." in row[0]],
        "options": sorted(records[0].options.items()) if len(records) == 1 else [],
        "warnings": _warnings(records),
        "recordings": _recordings(records),
        "machines": _machines(records),
        "runs": _runs(found),
        "known": any(isfinite(run.number("evaluation", "known_q", "max_error")) for run in records),
    }


def _title(found: Comparison) -> str:
    tasks = found.tasks[0] if len(found.tasks) == 1 else f"{len(found.tasks)} tasks"
    if len(found.records) == 1:
        return f"{next(iter(found.groups))} on {tasks}"
    names = " · ".join(found.groups) if len(found.groups) <= 4 else f"{len(found.groups)} groups of runs"
    return f"{names} on {tasks}"


def _trouble(records: Sequence[Record]) -> str:
    """The heading above the runs that have not finished."""
    states = [run.state for run in records if not run.finished]
    if len(records) == 1 and states:
        return {"failed": "This run failed", "stopped": "This run was stopped"}.get(states[0], "This run is unfinished")
    return f"{len(states)} of {len(records)} runs {'has' if len(states) == 1 else 'have'} no result"


def _tiles(found: Comparison) -> list[tuple[str, str]]:
    """The numbers at the top of the page, each with what it is."""
    records = found.records
    seconds = sum(map(seconds_of, records))
    steps = sum(x for x in map(steps_of, records) if isfinite(x))
    last = [(f"{steps:,.0f}", "env_steps"), (duration(seconds), "of training")]
    if len(records) > 1:
        done = sum(run.finished for run in records)
        shown = str(done) if done == len(records) else f"{done} of {len(records)}"
        counts = [(len(found.groups), "group"), (len(found.tasks), "task")]
        return [(shown, "runs finished"), *((str(n), word + "s" * (n != 1)) for n, word in counts), *last]
    (run,) = records
    std, episodes = run.number("evaluation", "std"), run.number("evaluation", "episodes")
    score = number(run.score) + (f" ± {number(std)}" if isfinite(std) else "")
    words = f"mean return of {episodes:.0f} episodes" if isfinite(episodes) else "mean return, the last that was logged"
    known = run.number("evaluation", "known_q", "max_error")
    return [(score, words), *([(number(known), "max |Q − Q*|")] if isfinite(known) else []), *last]


def steps_of(run: Record) -> float:
    """The env_steps that a run has done."""
    done = run.number("env_steps")
    return done if isfinite(done) else float(run.progress[-1]["env_steps"] if run.progress else "nan")


def seconds_of(run: Record) -> float:
    """The seconds that a run took; of one without a result those that its log adds up to."""
    whole = run.number("seconds")
    return max(0.0, whole) if isfinite(whole) else sum(run.seconds().values())


def _scores(found: Comparison) -> list[dict[str, Any]]:
    """A line for each group: its interquartile mean on each task, and over all of them."""
    comparable = found.comparable
    middles = {(name, task): found.interval(name, task) for name in found.groups for task in found.tasks}
    best = {
        task: max((middle[0] for (_, of), middle in middles.items() if middle and of == task), default=None)
        for task in found.tasks
    }
    lines = []
    for name in found.groups:
        cells = []
        for task in found.tasks:
            middle, count = middles[name, task], len(found.scores(name, task))
            top = middle is not None and middle[0] == best[task] and len(found.groups) > 1
            cells.append({**_cell(middle), "runs": count, "best": top})
        over_all = over_tasks(found.normalised(name)) if name in comparable and len(found.scored) > 1 else None
        top = bool(comparable) and name == comparable[0] and len(found.groups) > 1
        lines.append({"name": name, "cells": cells, "over_all": {**_cell(over_all), "best": top}})
    return lines


def _cell(middle: Interval | None) -> dict[str, str]:
    if middle is None:
        return {"middle": "–", "ends": ""}
    ends = f"{number(middle[1])} to {number(middle[2])}" if isfinite(middle[1]) else ""
    return {"middle": number(middle[0]), "ends": ends}


def number(value: float) -> str:
    """Four digits, with a real minus; – where there is none."""
    if not isfinite(value):
        return "–"
    text = f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    return text.replace("-", "−")


def duration(seconds: float) -> str:
    """In the largest unit that fits."""
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def _warnings(records: Sequence[Record]) -> list[tuple[str, list[str]]]:
    """Each sentence, as the first run said it, with the runs that said it with any numbers."""
    said: dict[str, tuple[str, dict[str, None]]] = {}
    for run in records:
        for sentence in run.warnings:
            said.setdefault(NUMBER.sub("", sentence), (sentence, {}))[1][run.name] = None
    return sorted(((sentence, [*names]) for sentence, names in said.values()), key=lambda pair: -len(pair[1]))


def _recordings(records: Sequence[Record]) -> list[dict[str, str]]:
    found = []
    for run in records:
        for path in run.media:
            kind, size = MEDIA[path.suffix], path.stat().st_size
            source = _embedded(path.read_bytes(), kind) if size <= LARGEST else ""
            found.append({"run": run.name, "file": path.name, "kind": kind, "source": source, "path": str(path)})
    return found


def _machines(records: Sequence[Record]) -> list[tuple[list[tuple[str, str]], list[str]]]:
    """What runs were made with and on, each with the runs of which that is so."""
    found: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for run in records:
        result = run.result
        machine, versions = ({**_dict(result.get(key))} for key in ("machine", "versions"))
        told = [(words, str(machine[key])) for key, words in MACHINE.items() if machine.get(key) is not None]
        told += [("device", str(result["device"]))] if "device" in result else []
        engine = str(result.get("engine", ""))  # why it was chosen differs from run to run
        told += [("engine", engine if len(records) == 1 else engine.partition(" (")[0])] if engine else []
        told += [("versions", ", ".join(f"{name} {version}" for name, version in versions.items()))] if versions else []
        found.setdefault(tuple(told) or (("not recorded", "the run has no result"),), []).append(run.name)
    return [([*told], names) for told, names in found.items()]


def _dict(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _runs(found: Comparison) -> list[dict[str, Any]]:
    return [
        {
            "name": run.name,
            "path": str(run.directory.resolve()),
            "state": run.state,
            "group": group,
            "task": run.task,
            "seed": run.options.get("seed", "–"),
            "score": number(run.score),
            "std": number(run.number("evaluation", "std")),
            "known": number(run.number("evaluation", "known_q", "max_error")),
            "steps": f"{steps_of(run):,.0f}" if isfinite(steps_of(run)) else "–",
            "seconds": duration(seconds_of(run)),
            "hash": str(run.result.get("parameter_hash", "–"))[:8],
        }
        for group, runs in found.groups.items()
        for run in runs
    ]
