"""The experiments after the README's figures: seeds in turn, cached and resumable, summed up with their spread.

usage: scripts/reproduce cartpole|worlds|memory|offline|distill [seeds=10] [jobs=2] [option=value …]
       scripts/reproduce classic [show] [env=…] [recipe=…] [seeds=10] [jobs=2] [sb3=PYTHON] [option=value …]
"""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from experiments import classic, launch
from experiments.results import interval
from scipy import stats


@dataclass
class Experiment:
    """Runs to make, each a list of overrides; `score` reads a result, the larger the better."""

    runs: dict[str, list[str]]
    score: str = "return"
    wanted: str = ""
    title: str = ""  # of the picture, where there is one


NARROW = ["algorithm=cql", "env=cartpole", "replay.path=runs/reproduce/data/seed{seed}"]
STUDENT = ["algorithm=distill", "teacher=runs/reproduce/dqn/seed{seed}", "torso.hidden=[32]", "steps=20000"]
EXPERIMENTS = {
    "cartpole": Experiment({"dqn": ["env=cartpole"]}, wanted="475", title="CartPole-v1, scripts/train"),
    "worlds": Experiment(
        {
            f"{algorithm} on {env}": [f"algorithm={algorithm}", f"env={env}"]
            for env in ("chain", "mdp1000")
            for algorithm in ("tabular", "dqn")
        },
        score="max |Q-Q*|",
    ),
    "memory": Experiment(  # the start tells the way at the end; the best return is 4, without memory 1.95
        {
            "r2d2 on tmaze": ["algorithm=r2d2", "env=tmaze"],
            "the same without a core": ["algorithm=r2d2", "env=tmaze", "core=none"],
        },
        wanted="3.5",
    ),
    "offline": Experiment(  # the last 2,000 steps of a run that ends greedy: one policy's alone
        {
            "data": ["env=cartpole", "replay.capacity=2000", "tuned.epsilon_end=0"],
            "cql": [*NARROW, "tuned.norm=null"],
            "cql without its term": [*NARROW, "tuned.norm=null", "terms=none"],
            "cql with LayerNorm and without its term": [*NARROW, "terms=none"],
        },
        wanted="475",
    ),
    "distill": Experiment(  # 68,610 parameters teach 290
        {
            "dqn": ["env=cartpole"],
            "student": STUDENT,
            "student of recorded data": [*STUDENT, "replay=dataset", "replay.path=runs/reproduce/dqn/seed{seed}"],
            "its network without a teacher": ["env=cartpole", "torso.hidden=[32]"],
        },
        wanted="475",
    ),
}  # fmt: skip


def score(result: dict, kind: str) -> float:
    evaluation = result["evaluation"]
    return evaluation["mean"] if kind == "return" else evaluation["known_q"]["max_error"]


def summary(values: np.ndarray) -> str:
    """Interquartile mean with a 95 % bootstrap interval, and the range."""
    iqm, low, high = interval(values)
    if low == high:
        return f"IQM {iqm:.4g}"
    return f"IQM {iqm:.4g} [{low:.4g}, {high:.4g}], from {values.min():.4g} to {values.max():.4g}"


def draw(name: str, title: str, seeds: int) -> Path:
    """The training return of every seed and its interquartile mean, as the README shows it."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
    curves = []
    for seed in range(seeds):
        events = EventAccumulator(str(launch.RUNS / name / f"seed{seed}"), size_guidance={"scalars": 0})
        points = {e.step // 1000: e.value for e in events.Reload().Scalars("episode/return")}
        curves.append([points.get(k, np.nan) for k in range(1, max(points) + 1)])
        axes.plot(range(1, len(curves[-1]) + 1), curves[-1], color="tab:blue", alpha=0.2, linewidth=0.8)
    length = min(map(len, curves))
    middle = [stats.trim_mean(column[~np.isnan(column)], 0.25) for column in np.array([c[:length] for c in curves]).T]
    axes.plot(range(1, length + 1), middle, color="tab:blue", linewidth=2, label=f"interquartile mean of {seeds} seeds")
    axes.set(xlabel="thousand env_steps", ylabel="return while exploring", title=title)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    path = launch.FIGURES / (f"{title.partition(',')[0].lower().removesuffix('-v1')}.png")
    figure.savefig(path, dpi=130)
    return path


def main() -> None:
    if sys.argv[1:2] == ["classic"]:
        sys.exit(classic.main(sys.argv[2:]))
    names = [a for a in sys.argv[1:] if "=" not in a]
    options = dict(a.split("=", 1) for a in sys.argv[1:] if a.startswith(("seeds=", "jobs=")))
    extra = [a for a in sys.argv[1:] if "=" in a and not a.startswith(("seeds=", "jobs="))]
    if len(names) != 1 or names[0] not in EXPERIMENTS:
        print(
            f"usage: scripts/reproduce {'|'.join(EXPERIMENTS)}|classic [seeds=10] [jobs=2] [option=value …]",
            file=sys.stderr,
        )
        sys.exit(2)
    experiment, seeds = EXPERIMENTS[names[0]], int(options.get("seeds", 10))
    jobs = int(options.get("jobs", os.cpu_count() or 1))
    table = {}
    for name, overrides in experiment.runs.items():
        with ThreadPoolExecutor(jobs) as pool:
            results = [*pool.map(lambda s: launch.make(name, [*overrides, *extra], s), range(seeds))]  # noqa: B023
        scores = np.array([score(result, experiment.score) for result in results])
        seconds = np.array([result["seconds"] for result in results])
        line = f"{name}: {experiment.score} over {seeds} seeds: {summary(scores)}"
        if experiment.wanted:
            line += f"; {int((scores >= float(experiment.wanted)).sum())} of {seeds} reach {experiment.wanted}"
        if experiment.score != "return":
            known = [result["evaluation"]["known_q"] for result in results]
            line += f" ({100 * np.mean([k['max_error'] / k['range'] for k in known]):.2f} % of the range of Q*)"
        print(f"{line}; median {np.median(seconds):.0f} s a run with {jobs} at once")
        print("  " + ", ".join(f"{s:.4g}" for s in scores))
        if experiment.title:
            print(f"  picture: {draw(name, experiment.title, seeds)}")
        table[name] = {
            "scores": scores.tolist(),
            "seconds": seconds.tolist(),
            "versions": results[0]["versions"],
        }
    path = launch.RUNS / f"{names[0]}.json"
    path.write_text(
        json.dumps(
            {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count(), "runs": table},
            indent=1,
        )
    )
    print(f"Numbers are in {path}; curves: tensorboard --logdir {launch.RUNS}")


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, launch.stop)
    try:
        main()
    except launch.Failed as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
