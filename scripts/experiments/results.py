"""What `scripts/reproduce classic` keeps and shows: the file of all runs, README's table and the picture."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from experiments import launch
from scipy import stats

LABELS = {"dqn-zoo": "`dqn`, the zoo's settings", "sb3": "Stable-Baselines3 DQN, the zoo's settings"}
PUBLISHED = {  # rl-baselines3-zoo, benchmark.md (LunarLander-v2); CleanRL, docs of dqn.py; SLM-Lab, benchmark
    "published: zoo DQN, one run": {"cartpole": 500, "acrobot": -76.6, "mountaincar": -100.8, "lunarlander": 154.4},
    "published: zoo QR-DQN, one run": {"acrobot": -69.1, "mountaincar": -106.0, "lunarlander": 70.2},
    "published: CleanRL DQN, 500k steps": {"cartpole": 488.7, "acrobot": -91.5, "mountaincar": -195},
    "published: SLM-Lab DDQN+PER, 300k steps": {"lunarlander": 265.9},
}
MARKS = ("<!-- classic -->", "<!-- /classic -->")


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Interquartile mean with the ends of its 95 % bootstrap interval; of one value, or of equal ones, that value."""
    iqm = float(stats.trim_mean(values, 0.25))
    if len(values) < 2 or np.ptp(values) == 0:
        return iqm, iqm, iqm
    ends = stats.bootstrap(
        (values,), lambda x, axis: stats.trim_mean(x, 0.25, axis=axis), rng=0, method="percentile"
    ).confidence_interval
    return iqm, float(ends.low), float(ends.high)


def digest(value: Any) -> str:
    """A hash of nested settings. An option that is null does not count: adding one that is off leaves it as it was."""

    def without_none(node: Any) -> Any:
        if isinstance(node, dict):
            return {k: without_none(v) for k, v in node.items() if v is not None}
        return [without_none(v) for v in node] if isinstance(node, list) else node

    return hashlib.sha256(json.dumps(without_none(value), sort_keys=True).encode()).hexdigest()[:10]


def read(path: Path) -> dict[str, dict]:
    """The file: `sittings` (where and from what runs were made) and `runs`, named env/recipe/seed."""
    return json.loads(path.read_text()) if path.is_file() else {"sittings": {}, "runs": {}}


def sitting(versions: dict, jobs: int) -> dict[str, Any]:
    """Hardware, versions, date and commit of a run."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=launch.ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    info = Path("/proc/cpuinfo")
    cpu = re.search(r"model name\s*: (.*)", info.read_text()) if info.is_file() else None
    changed = " with changes" if git("status", "--porcelain", "--", "dqn", "conf") else ""
    return {
        "date": date.today().isoformat(),
        "commit": (git("rev-parse", "--short", "HEAD") or "unknown") + changed,
        "cpu": cpu[1] if cpu else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "jobs": jobs,
        "versions": versions,
    }


def land(path: Path, key: str, settings: str, result: dict, jobs: int) -> None:
    """Add a finished run to the file, one line a run; runs of its row that were made with other settings go."""
    data, here = read(path), sitting(result["versions"], jobs)
    seconds = max(result["seconds"], sum(result.get("seconds_by_stage", {}).values()))  # a resumed run adds up stages
    row = key.rpartition("/")[0] + "/"
    runs = {k: v for k, v in data["runs"].items() if not k.startswith(row) or v["settings"] == settings}
    runs[key] = {
        "settings": settings,
        "return": round(result["evaluation"]["mean"], 4),
        "seconds": round(seconds, 1),
        **{k: result[k] for k in ("env_steps", "updates", "device")},
        "sitting": digest(here),
    }
    used = {v["sitting"] for v in runs.values()}
    sittings = {k: v for k, v in {**data["sittings"], digest(here): here}.items() if k in used}
    order = sorted(runs, key=lambda k: (k.rpartition("/")[0], int(k.rpartition("/")[2])))
    parts = {"sittings": sittings, "runs": {k: runs[k] for k in order}}
    lines = {n: ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in p.items()) for n, p in parts.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text("{\n" + ",\n".join(f' "{n}": {{\n{t}\n }}' for n, t in lines.items()) + "\n}\n")
    part.replace(path)


def column(data: dict, env: str, recipe: str, field: str) -> np.ndarray:
    """One field of every seed of a pair."""
    return np.array([run[field] for key, run in data["runs"].items() if key.startswith(f"{env}/{recipe}/")])


def number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0").replace("-", "−")


def cell(data: dict, env: str, recipe: str, most: int) -> str:
    """IQM and its interval; the number of seeds where others have more."""
    values = column(data, env, recipe, "return")
    if not len(values):
        return "–"
    iqm, low, high = interval(values)
    fewer = f", {len(values)} seed{'s' * (len(values) > 1)}" if len(values) < most else ""
    return f"{number(iqm)} [{number(low)}, {number(high)}]{fewer}"


def table(data: dict, envs: dict[str, str], recipes: Iterable[str]) -> str:
    """The table in Markdown with what was published below, and how to read it."""
    if not data["runs"]:
        return "No run has landed yet."
    rows = [r for r in recipes if any(len(column(data, e, r, "return")) for e in envs)]
    steps = {e: [v["env_steps"] for k, v in data["runs"].items() if k.startswith(f"{e}/")] for e in envs}
    most = max(len(column(data, e, r, "return")) for e in envs for r in rows)
    titles = [f"{name}, {round(min(steps[e]) / 1000)}k steps" if steps[e] else name for e, name in envs.items()]
    lines = [f"| | {' | '.join(titles)} |", "|---" * (len(envs) + 1) + "|"]
    lines += [f"| {LABELS.get(r, f'`{r}`')} | {' | '.join(cell(data, e, r, most) for e in envs)} |" for r in rows]
    for label, known in PUBLISHED.items():
        lines.append(f"| {label} | {' | '.join(number(known[e]) if e in known else '–' for e in envs)} |")
    made = data["sittings"].values()
    machines = sorted({f"{s['cpu']}, {s['cores']} cores, {s['jobs']} at once" for s in made})
    versions = sorted(
        {f"{n} {v}" for s in made for n, v in s["versions"].items() if n in ("torch", "stable_baselines3")}
    )
    return "\n".join(lines) + (
        f"\n\nGreedy evaluation of 100 episodes after training: interquartile mean over {most} seeds [95 % bootstrap "
        f"interval], one thread a run. {'; '.join(machines)}; {', '.join(versions)}; "
        f"{' to '.join(sorted({min(s['date'] for s in made), max(s['date'] for s in made)}))}."
    )


def write_readme(readme: Path, text: str) -> str:
    """Put the table between its marks; a sentence that says what is missing, or nothing."""
    before, after = readme.read_text(), f"{MARKS[0]}\n{text}\n{MARKS[1]}"
    if not all(mark in before for mark in MARKS):
        return f"{readme} has no place for the table: add {MARKS[0]} and {MARKS[1]} on lines of their own."
    readme.write_text(re.sub(f"{MARKS[0]}.*{MARKS[1]}", lambda _: after, before, flags=re.DOTALL))
    return ""


def draw(data: dict, envs: dict[str, str], recipes: list[str], path: Path) -> Path:
    """One panel an environment: IQM and interval of every recipe; Stable-Baselines3 and published numbers as lines."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [r for r in recipes if any(len(column(data, e, r, "return")) for e in envs)]
    figure, panels = plt.subplots(1, len(envs), figsize=(13, 1.6 + 0.32 * len(rows)), layout="constrained", sharey=True)
    styles = dict(zip(PUBLISHED, ("--", ":", "-.", (0, (6, 3))), strict=True))
    for axes, (env, title) in zip(panels, envs.items(), strict=True):
        for height, recipe in enumerate(rows):
            values = column(data, env, recipe, "return")
            if len(values):
                iqm, low, high = interval(values)
                color = "tab:orange" if recipe == "sb3" else "tab:blue"
                axes.plot([low, high], [height, height], color=color, linewidth=2.5, alpha=0.6)
                axes.plot(iqm, height, "o", color=color)
                if recipe == "sb3":
                    axes.axvline(iqm, color=color, linewidth=1, label=LABELS["sb3"])
        for label, known in PUBLISHED.items():
            if env in known:
                axes.axvline(known[env], color="0.5", linewidth=1, linestyle=styles[label], label=label)
        axes.set(title=title, xlabel="return, greedy", yticks=range(len(rows)), yticklabels=rows)
        axes.grid(alpha=0.3, axis="x")
    panels[0].invert_yaxis()  # shared: the table's order from the top
    legend = {label: line for axes in panels for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(legend.values(), legend.keys(), loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
