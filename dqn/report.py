"""Compare finished runs: python -m dqn.report RUN [RUN …] prints a table, the best first."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from dqn.cli import option_names


def rows(directories: list[Path]) -> list[tuple[Path, dict[str, Any], dict[str, Any]]]:
    """(directory, options, result) of each finished run among `directories`."""
    found = []
    for directory in directories:
        if (directory / "result.json").is_file():
            cfg = OmegaConf.load(directory / "config.yaml")
            options = {
                n: OmegaConf.select(cfg, n, throw_on_missing=False)
                for n in option_names(cfg)
                if n.split(".")[0] != "run"
            }
            found.append((directory, options, json.loads((directory / "result.json").read_text())))
    return found


def table(directories: list[Path]) -> str:
    """The runs as lines, sorted by |Q − Q*| where Q* is known, else by the evaluation's mean return.

    A column for every option in which the runs differ.
    """
    runs = rows(directories)
    if not runs:
        return "No finished run (a directory with a result.json) was found."
    names = [
        n for n in runs[0][1]
        if not isinstance(runs[0][1][n], DictConfig) and len({str(options.get(n)) for _, options, _ in runs}) > 1
    ]  # fmt: skip
    known = all("known_q" in result["evaluation"] for *_, result in runs)

    def rank(run: tuple[Path, dict, dict]) -> float:
        evaluation = run[2]["evaluation"]
        return evaluation["known_q"]["max_error"] if known else -evaluation["mean"]

    head = [*names, *(("max |Q−Q*|", "mean |Q−Q*|") if known else ()), "return", "±", "seconds", "run"]
    lines = [head]
    for directory, options, result in sorted(runs, key=rank):
        evaluation = result["evaluation"]
        errors = (evaluation["known_q"]["max_error"], evaluation["known_q"]["mean_error"]) if known else ()
        numbers = [f"{x:.4g}" for x in (*errors, evaluation["mean"], evaluation["std"])]
        lines.append([*(str(options.get(n)) for n in names), *numbers, f"{result['seconds']:.1f}", directory.name])
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)) for line in lines)


class SweepTable(Callback):
    """Ends a Hydra multirun with the table of its jobs."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        directory = Path(config.hydra.sweep.dir)
        print(f"\n{table(sorted(directory.iterdir()))}\nRuns are in {directory.resolve()}")
        print(f"  curves:  tensorboard --logdir {directory}")


def main() -> None:
    if len(sys.argv) < 2:
        print("usage: python -m dqn.report RUN [RUN …]", file=sys.stderr)
        sys.exit(2)
    print(table([Path(argument) for argument in sys.argv[1:]]))


if __name__ == "__main__":
    main()
