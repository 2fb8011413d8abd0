"""How fast the program is on this machine: by stage, by engine, beside other programs, beside what arithmetic costs.

usage: scripts/bench stages [out=DIR] [option=value …]
       scripts/bench engines [engines=eager,compile,cudagraph] [windows=5] [calls=500] [out=DIR] [option=value …]
       scripts/bench peers [sb3=PYTHON] [settings=cleanrl|zoo|pong] [windows=5] [steps=20000] [start=10000] [device=cpu]
                           [out=DIR]
       scripts/bench per [leaves=1000000] [batch=256] [engines=…] [windows=5] [calls=500] [device=auto] [out=DIR]

An option=value is an override of conf/. Where no algorithm is named, CleanRL's settings for CartPole-v1 stand below it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import torch
from benchmarks import floors, peers, speeds
from benchmarks.report import Report, number
from experiments import launch, results

from dqn.config.cli import front_door, nearest
from dqn.errors import UsageError

OPTIONS: dict[str, dict[str, Any]] = {
    "stages": {"out": ""},
    "engines": {"engines": "", "windows": 5, "calls": 500, "out": ""},
    "peers": {
        "sb3": sys.executable, "settings": "cleanrl", "windows": 5, "steps": 0, "start": 0, "device": "cpu", "out": "",
    },
    "per": {
        "leaves": 1_000_000, "batch": 256, "engines": "", "windows": 5, "calls": 500, "device": "auto", "out": "",
    },
}  # fmt: skip
COMMANDS: dict[str, Callable[..., Report]] = {
    "stages": speeds.stages, "engines": speeds.engines, "peers": peers.compare, "per": speeds.per,
}  # fmt: skip
OVERRIDDEN = ("stages", "engines")  # these take overrides of conf/ too
NEXT = {
    "stages": "scripts/bench engines, with the same options",
    "engines": "scripts/bench peers sb3=PYTHON, one that has stable-baselines3",
    "peers": "scripts/bench stages, to see where the time goes",
    "per": "scripts/bench engines replay=prioritized, for a whole update",
}


def parse(command: str, arguments: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The command's own options and the overrides of conf/. Errors: UsageError."""
    options, overrides = dict(OPTIONS[command]), []
    for argument in arguments:
        name, sign, value = argument.partition("=")
        if name not in options or not sign:
            if command not in OVERRIDDEN or not sign:
                near = nearest(name, [*options])
                raise UsageError(f"{argument} is not an option of scripts/bench {command}{near}: it takes "
                                 f"{', '.join(f'{known}=' for known in options)}.")  # fmt: skip
            overrides.append(argument)
        elif isinstance(options[name], str):
            options[name] = value
        elif value.isdecimal() and int(value):
            options[name] = int(value)
        else:
            raise UsageError(f"{argument}: {name} must be a whole number above 0.")
    return options, overrides


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown whose columns are aligned in a terminal too."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(f"| {' | '.join(c.ljust(w) for c, w in zip(line, widths, strict=True))} |" for line in lines)


def draw(report: Report, title: str, path: Path) -> None:
    """A bar for each row, up to the median, with the range; the floor as a line."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 1.4 + 0.4 * len(report.bars)), layout="constrained")
    middles = [median(values) for values in report.bars.values()]
    below = [m - min(values) for m, values in zip(middles, report.bars.values(), strict=True)]
    above = [max(values) - m for m, values in zip(middles, report.bars.values(), strict=True)]
    axes.barh([*report.bars], middles, xerr=[below, above], color="tab:blue", ecolor="0.3", capsize=3)
    if report.floor is not None:
        axes.axvline(report.floor, color="tab:orange", label=f"floor: {number(report.floor)}")
        axes.legend(frameon=False)
    axes.set(xlabel=report.axis, title=title)
    axes.invert_yaxis()  # the table's order from the top
    axes.grid(alpha=0.3, axis="x")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def publish(command: str, arguments: list[str], report: Report, out: str) -> None:
    """Print the table, write the numbers and the picture, say where they lie and what to type next."""
    folder = Path(out) if out else launch.ROOT / "runs" / "bench" / f"{command}-{datetime.now():%Y%m%d-%H%M%S}"
    folder.mkdir(parents=True, exist_ok=True)
    here = results.sitting(floors.versions(), 1)
    here["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    machine = f"{here['cpu']}, {here['cores']} cores{', ' + here['gpu'] if here['gpu'] else ''}"
    print(f"{table(report.head, report.rows)}\n")
    print("\n".join(report.notes))
    print(f"{machine}; torch {torch.__version__}, commit {here['commit']}, {here['date']}.")
    numbers = {
        "command": command, "arguments": arguments, "sitting": here, "table": [report.head, *report.rows],
        "notes": report.notes, "unit": report.axis, "windows": report.bars, "floor": report.floor, **report.more,
    }  # fmt: skip
    path = folder / f"{command}.json"
    path.write_text(json.dumps(numbers, indent=1))
    draw(report, f"scripts/bench {command}: {machine}", path.with_suffix(".png"))
    print(f"Numbers in {path}, picture beside them; next: {NEXT[command]}")


def main(arguments: list[str]) -> None:
    """The command. Errors end it with one sentence: exit code 2 for bad input, 1 for what failed on the way."""
    if not arguments or arguments[0] not in COMMANDS:
        print(str(__doc__).partition("\n\n")[2].strip(), file=sys.stderr)
        sys.exit(2)
    command, given = arguments[0], arguments[1:]

    def job() -> None:
        options, overrides = parse(command, given)
        publish(command, given, COMMANDS[command](options, overrides), options["out"])

    front_door(job)


if __name__ == "__main__":
    for signalled in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signalled, launch.stop)
    try:
        main(sys.argv[1:])
    except launch.Failed as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
