"""A run as a process of its own: begun, resumed and stopped."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[2]
RUNS = ROOT / "runs" / "reproduce"
FIGURES = ROOT / "scripts" / "results"  # what is published


class Failed(RuntimeError):
    """A run that ended without a result."""


CHILDREN: set[subprocess.Popen] = set()


def call(name: str, command: list[str]) -> None:
    """A process of its own, known to `CHILDREN` while it runs. Errors: Failed, with the end of what it printed."""
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, process_group=0
    )
    CHILDREN.add(child)
    printed, _ = child.communicate()
    CHILDREN.discard(child)
    if child.returncode:
        raise Failed(f"{name} failed:\n{printed[-2000:]}")


def stop(number: int, frame: object) -> NoReturn:
    """Ctrl-C and SIGTERM: each run gets one signal and ends with a checkpoint; a second would kill it."""
    for known in (signal.SIGINT, signal.SIGTERM):
        signal.signal(known, signal.SIG_IGN)
    for child in list(CHILDREN):
        child.terminate()
    raise KeyboardInterrupt


def make(name: str, overrides: list[str], seed: int) -> dict:
    """One run in a process of its own, or what is left of it, or nothing if it is finished."""
    directory = RUNS / name.replace(" ", "-") / f"seed{seed}"
    given = [override.replace("{seed}", str(seed)) for override in overrides]
    if not (directory / "result.json").is_file():
        begun = (directory / "config.yaml").is_file() and any(directory.glob("checkpoints/*.json"))
        if not begun and directory.exists():
            shutil.rmtree(directory)
        start = [f"resume={directory}"] if begun else [f"run.dir={directory}", f"seed={seed}", *given]
        call(f"{name}, seed {seed}", [sys.executable, "-m", "dqn.train", *start])
    return json.loads((directory / "result.json").read_text())
