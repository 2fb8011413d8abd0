"""What a run has left in its directory, whatever became of it: read as data, none of it believed to be whole."""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import isfinite, nan
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from dqn.config.cli import plain_options, run_config
from dqn.errors import UsageError
from dqn.tracking.logger import STAGES, read_table

LOG, FAILED = "train.log", "error.txt"
MOST_WARNINGS, LONGEST = 12, 600  # different sentences of a run that are shown, and letters of each
LINE = re.compile(r"\d{4}-\d\d-\d\d [\d:,]+ (DEBUG|INFO|WARNING|ERROR) (.*)")
MEDIA = {".mp4": "video/mp4", ".gif": "image/gif"}
FOLDERS = (".", "video", "videos")  # where recordings of a run lie


@dataclass
class Record:
    """One run: its options, how it ended, what it logged."""

    directory: Path
    options: dict[str, str]
    state: str  # finished, failed, stopped, unfinished
    said: str  # why, in a sentence; empty where it is finished
    result: dict[str, Any] = field(default_factory=dict)
    progress: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    media: list[Path] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.directory.resolve().name

    @property
    def task(self) -> str:
        """The environment, by its id or the class of its world."""
        return self.options.get("env.id") or self.options.get("env.world") or self.options.get("env") or "unknown"

    @property
    def finished(self) -> bool:
        return self.state == "finished"

    def number(self, *path: str) -> float:
        """A number of `result.json`, nan where there is none."""
        found: Any = self.result
        for key in path:
            found = found.get(key) if isinstance(found, dict) else None
        return finite(found)

    @property
    def score(self) -> float:
        """The mean return of the closing evaluation; of a run without one that of its last episodes; of one that has
        not finished the last evaluation that it logged."""
        closing = self.number("evaluation", "mean")
        if isfinite(closing):
            return closing
        if self.finished:
            return self.number("training", "return")
        _, values = self.curve("evaluation/return")
        return float(values[-1]) if len(values) else nan

    def curve(self, tag: str) -> tuple[np.ndarray, np.ndarray]:
        """What was logged under a tag: env_steps [N] and values [N]."""
        found = [(finite(row.get("env_steps")), finite(row.get(tag))) for row in self.progress if tag in row]
        points = np.array([pair for pair in found if all(map(isfinite, pair))]).reshape(-1, 2)
        return points[:, 0], points[:, 1]

    def seconds(self) -> dict[str, float]:
        """Seconds by stage; of a run without a result what its log adds up to."""
        stages = self.result.get("seconds_by_stage")
        if isinstance(stages, dict):
            return {name: max(0.0, finite(stages.get(name), 0.0)) for name in STAGES}
        spent: dict[str, float] = dict.fromkeys(STAGES, 0.0)
        before = 0.0
        for row in self.progress:
            speed = finite(row.get("speed/env_steps_per_s"))
            if speed > 0 and (now := finite(row["env_steps"])) > before:
                for name in STAGES:
                    spent[name] += max(0.0, finite(row.get(f"time/{name}"), 0.0)) * (now - before) / speed
                before = now
        return spent


def finite(value: Any, other: float = nan) -> float:
    """A number that was read, `other` where it is none, or too large to be meant."""
    with suppress(OverflowError):
        if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e30:
            return float(value)
    return other


def runs_below(directories: Sequence[Path]) -> list[Path]:
    """The directories, and for one that holds runs and is none itself, as that of a sweep, the runs in it."""
    found = []
    for directory in directories:
        if is_run(directory) or not directory.is_dir():
            found.append(directory)
            continue
        inner = sorted((path for path in directory.iterdir() if path.is_dir() and is_run(path)), key=_in_order)
        found += inner or [directory]
    return [*dict.fromkeys(found)]


def is_run(directory: Path) -> bool:
    """Whether a run, or the job of a sweep that could not begin, has left anything there."""
    return any((directory / name).is_file() for name in ("config.yaml", "result.json", FAILED))


def _in_order(path: Path) -> tuple[int, str]:
    """2-seed=1 comes before 10-seed=9."""
    number = re.match(r"\d{1,9}", path.name)
    return int(number[0]) if number else -1, path.name


def record(directory: Path) -> Record:
    """What lies in a run's directory. Errors: UsageError where no run does."""
    if not is_run(directory):
        raise UsageError(f"no run lies in {directory}")
    try:
        options, unread = _options(directory), ""
    except UsageError as error:
        options, unread = {}, str(error)
    said, warnings = _log(directory / LOG)
    result, damaged = _result(directory / "result.json")
    if result:
        state, why = ("finished", "") if not unread else ("failed", unread)
    elif damaged:
        state, why = "failed", damaged
    elif (directory / FAILED).is_file():
        state, why = "failed", _beginning(directory / FAILED)
    elif said:
        state, why = said
    else:
        state, why = "unfinished", unread or "It has no result: it is still running, or its process was killed."
    return Record(directory, options, state, why, result, read_table(directory), warnings, [*_media(directory)])


def _options(directory: Path) -> dict[str, str]:
    cfg = run_config(directory)
    chosen = {name: OmegaConf.select(cfg, f"chosen.{name}", throw_on_missing=False) for name in ("algorithm", "env")}
    found = {name: value for name, value in {**chosen, **plain_options(cfg)}.items() if value is not None}
    return {name: str(value)[:LONGEST] for name, value in found.items()}


def _result(path: Path) -> tuple[dict[str, Any], str]:
    """What `result.json` holds, or what is wrong with it."""
    if not path.is_file():
        return {}, ""
    try:
        result = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        return {}, f"Its result.json is damaged ({' '.join(str(error).split())[:80]})."
    if not isinstance(result, dict) or not result:
        return {}, "Its result.json is damaged (it holds no result)."
    return result, ""


def _log(path: Path) -> tuple[tuple[str, str] | None, list[str]]:
    """How the run ended, where its log says it, and the warnings in it."""
    ended: tuple[str, str] | None = None
    warnings: dict[str, None] = {}
    inside = False  # the traceback of the error that ended it
    for level, text in _lines(path):
        if level:
            inside = text == "The run ended here"
            ended = ("failed", "It ended with an error.") if inside else ended
        if level == "WARNING" and len(warnings) < MOST_WARNINGS:
            warnings[text] = None
        elif level == "INFO" and text.startswith("Stopped at"):
            ended = ("stopped", text)
        elif level == "INFO" and text.startswith("Resuming from"):
            ended = None
        elif not level and inside and (error := re.match(r"[\w.]+(?:Error|Failure): (.+)", text)):
            ended = ("failed", error[1])
    return ended, [*warnings]


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Each line of the log with its level; that of a line that goes on is empty."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        while line := file.readline(100_000):
            found = LINE.match(line)
            level, text = found.groups() if found else ("", line)
            yield level, text.strip()[:LONGEST]


def _beginning(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        return " ".join(file.read(LONGEST).split())


def _media(directory: Path) -> Iterator[Path]:
    """The recordings that lie in the run; of one in two formats the mp4. No link is followed."""
    for folder in FOLDERS:
        place = directory / folder
        if not place.is_dir() or (place.is_symlink() and folder != "."):
            continue
        found = {p.stem: p for ending in (".gif", ".mp4") for p in sorted(place.glob(f"*{ending}"))}
        yield from (path for path in found.values() if path.is_file() and not path.is_symlink())
