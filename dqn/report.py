"""Compare finished runs: python -m dqn.report RUN [RUN …] prints a table, the best first."""

import json
import sys
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from dqn.cli import explain, option_names, run_config


def rows(directories: list[Path]) -> list[tuple[Path, dict[str, Any], dict[str, Any]]]:
    """(directory, options, result) of each finished run among `directories`."""
    found = []
    for directory in directories:
        if (directory / "result.json").is_file():
            cfg = run_config(directory)
            options = {
                n: _short(OmegaConf.select(cfg, n, throw_on_missing=False))
                for n in option_names(cfg)
                if n.split(".")[0] != "run"
            }
            found.append((directory, options, json.loads((directory / "result.json").read_text())))
    return found


def _short(value: Any) -> str:
    """An option's value in a cell: of a part its name, of other sections nothing."""
    return str(value.get("_target_", "")).rpartition(".")[2] if isinstance(value, DictConfig) else str(value)


def _columns(runs: list[tuple[Path, dict[str, Any], dict[str, Any]]]) -> list[str]:
    """The options in which runs differ; of those that say the same of every run the shortest name."""
    told: dict[tuple[str, ...], str] = {}
    for name in sorted({n for _, options, _ in runs for n in options}, key=len):
        values = tuple(options.get(name, "") for _, options, _ in runs)
        if len({*values}) > 1:
            told.setdefault(values, name)
    return sorted(told.values())


def table(directories: list[Path]) -> str:
    """The runs as lines, sorted by |Q − Q*| where Q* is known, else by the evaluation's mean return.

    A column for every option in which the runs differ; where seeds differ, a second table of their means.
    """
    runs = rows(directories)
    if not runs:
        return "No finished run (a directory with a result.json) was found."
    names = _columns(runs)
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
        lines.append([*(options.get(n, "") for n in names), *numbers, f"{result['seconds']:.1f}", directory.name])
    if "seed" not in names:
        return _aligned(lines)
    others = [n for n in names if n != "seed"]
    groups: dict[tuple[str, ...], list[float]] = {}
    for _, options, result in runs:
        groups.setdefault(tuple(options.get(n, "") for n in others), []).append(result["evaluation"]["mean"])
    means = sorted(
        ((fmean(scores), pstdev(scores), len(scores), group) for group, scores in groups.items()), reverse=True
    )
    over = [[*group, str(count), f"{mean:.4g}", f"{spread:.4g}"] for mean, spread, count, group in means]
    return f"{_aligned(lines)}\n\n{_aligned([[*others, 'seeds', 'mean return', '±'], *over])}"


def _aligned(lines: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)) for line in lines)


class SweepTable(Callback):
    """Ends a Hydra multirun with the table of its jobs. One that fails leaves `error.txt` in its directory and does not
    stop the others; the sweep then ends with exit code 1."""

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        directory = Path(str(job_return.hydra_cfg.hydra.runtime.output_dir))  # pyright: ignore[reportOptionalMemberAccess]
        if config.hydra.mode is not RunMode.MULTIRUN:
            return
        (directory / "error.txt").unlink(missing_ok=True)
        if job_return.status is JobStatus.FAILED:
            error = job_return._return_value
            directory.mkdir(parents=True, exist_ok=True)
            (directory / "error.txt").write_text(explain(error) if isinstance(error, BaseException) else str(error))
            job_return.status, job_return.return_value = JobStatus.COMPLETED, float("nan")

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        directory = Path(config.hydra.sweep.dir)
        print(f"\n{table(sorted(directory.iterdir()))}\nRuns are in {directory.resolve()}")
        print(f"  curves:  tensorboard --logdir {directory}")
        failed = sorted(directory.glob("*/error.txt"))
        for path in failed:
            print(f"error: job {path.parent.name}: {path.read_text()}", file=sys.stderr)
        if failed:
            sys.exit(1)


def main() -> None:
    if len(sys.argv) < 2 or {"-h", "--help"} & {*sys.argv}:
        print("usage: python -m dqn.report RUN [RUN …]", file=sys.stderr)
        sys.exit(2)
    directories = [Path(argument) for argument in sys.argv[1:]]
    print(table(directories))
    missing = [str(directory) for directory in directories if not (directory / "result.json").is_file()]
    if missing:
        print(f"error: no finished run lies in {', '.join(missing)}.", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
