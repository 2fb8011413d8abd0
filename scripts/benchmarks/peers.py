"""`scripts/bench peers`: this program, Stable-Baselines3's DQN and DQN in one file at the same settings."""

from __future__ import annotations

import json
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from benchmarks import speeds
from benchmarks.floors import alternate
from benchmarks.report import Report, number, spread
from benchmarks.settings import SETTINGS, arguments_of_sb3, overrides, settings_of_one_file
from experiments import classic, launch

from dqn.device import choose_device
from dqn.errors import RunError, UsageError

MODULES = {"ale-py": "ale_py", "opencv-python": "cv2"}  # what packages bring
LABELS = {"sb3": "Stable-Baselines3's DQN", "one-file": "DQN in one file"}


def window_of(program: str, options: dict[str, Any], number: int) -> dict[str, Any]:
    """One window in a process of its own, its seed the window's number; `start_s` is all that is not the window.

    Errors: launch.Failed, with the end of what the program printed.
    """
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "window.json"
        python = options["sb3"] if program == "sb3" else sys.executable
        chosen = [f"{name}={options[name]}" for name in ("settings", "start", "steps", "device")]
        given = [*chosen, f"seed={number}", f"out={out}"]
        started = perf_counter()
        launch.call(program, [python, "-m", "benchmarks.peer", program, *given])
        took, found = perf_counter() - started, json.loads(out.read_text())
    return {**found, "start_s": took - found["seconds"]}


def check(options: dict[str, Any]) -> dict[str, Any]:
    """The settings, whose own start and steps stand where none are given. Errors: UsageError for settings that are not
    known, for steps between two updates, and where there is no Stable-Baselines3."""
    of = SETTINGS.get(options["settings"])
    if of is None:
        raise UsageError(f"settings={options['settings']} is not known: choose from {', '.join(SETTINGS)}.")
    for name in ("start", "steps"):
        options[name] = options[name] or of[name]
        if options[name] % of["train_every"]:
            raise UsageError(
                f"{name}={options[name]} must be a multiple of {of['train_every']}: all then learn equally often."
            )
    try:
        classic.need_sb3(options["sb3"])
    except ValueError as error:
        raise UsageError(str(error)) from error
    players = [(options["sb3"], ["ale-py", "opencv-python"]), (sys.executable, ["ale-py"])]
    for python, packages in players if of["conf"] == "atari" else []:
        if not all(classic.has(python, MODULES[name]) for name in packages):
            raise UsageError(f"{python} cannot play Atari: {python} -m pip install {' '.join(packages)}")
    return of


def compare(options: dict[str, Any], extra: list[str]) -> Report:
    """A window of each program in turn. Errors: as `check`; RunError where the programs did not do the same work."""
    of = check(options)
    start, steps = options["start"], options["steps"]
    due = steps // of["train_every"] * of["updates"]
    engines = speeds.engines_for(choose_device(options["device"])[0])
    names = [*engines, *(name.replace("eager", engines[-1]) for name in of["programs"])]
    others = [LABELS[name] for name in names if name in LABELS]
    found = alternate({name: partial(window_of, name, options) for name in names}, options["windows"])
    updates = {name: sorted({w["updates"] for w in windows}) for name, windows in found.items()}
    if any(counts != [due] for counts in updates.values()):
        raise RunError(f"The programs did not all learn {due} times in a window: {updates}.")
    speed = {LABELS.get(n, f"this program, {n}"): [steps / w["seconds"] for w in ws] for n, ws in found.items()}
    middle = {name: median(values) for name, values in speed.items()}
    rows = [
        [label, *spread(speed[label]), *(f"{middle[label] / middle[other]:.2f}" for other in others),
         number(median(w["start_s"] for w in found[name]))]
        for name, label in zip(names, speed, strict=True)
    ]  # fmt: skip
    usual = "" if start == of["start"] else f" (the settings say {of['start']:,} before the first update)"
    notes = [
        f"{of['env']}, {of['network']}, Adam {of['lr']}, batch {of['batch_size']}, "
        f"{of['updates']} update(s) every {of['train_every']} steps, target copied every {of['target_every']}, memory "
        f"{of['buffer']:,}, one environment, {of['threads']} thread(s), {options['device']}."
        + " +process: execution.actor=process, on two cores." * any("+" in name for name in names),
        f"Median of {options['windows']} windows of {steps:,} env_steps with {due:,} updates, the programs in turn, "
        f"each window a process. Start: imports, wiring, {start + of['warm']:,} env_steps before the window{usual}, "
        "compiling.",
    ]  # fmt: skip
    total = start + of["warm"] + steps
    settings = {"this program": overrides(start, total, of), "sb3": arguments_of_sb3(start, of)}
    if "one-file" in names:
        settings["one-file"] = settings_of_one_file(start, total, 0, of)
    head = ["program", "env_steps/s", "from, to", *(f"times {other}" for other in others), "start, s"]
    return Report(
        head, rows, notes, speed, "env_steps/s", more={"settings": settings, "runs": found, "options": options}
    )
