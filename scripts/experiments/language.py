"""Reward against KL on a task of env=lm: the language model, best of n, and runs that guide it, on test prompts.

    python scripts/experiments/language.py [kl=0.1,0.3] [copies=4] [exported=NAME] NAME=RUN[,RUN…] … [out=FILE.json]
        [picture=FILE.png]
    python scripts/experiments/language.py log=FILE.jsonl copies=11 NAME=RUN    # texts of the model alone, with scores

Runs of one name differ in their seeds: their mean has the 95 % interval of Student's t; that of one run, and of the
model alone, is that of its texts. A run's temperature for a wanted KL is found on validation prompts. Of the runs named
by exported=, whose values must fold, the exported model is measured, too: at the guided policy's temperature, and at
the same KL of its own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from math import inf, log, sqrt
from pathlib import Path
from statistics import fmean, stdev
from time import perf_counter
from typing import Any

import torch
from scipy import stats

from dqn.agent import configuration, trained
from dqn.config import parts
from dqn.envs.lm import prompts_of
from dqn.envs.prompts import Prompt
from dqn.language import Text, Writer, summary, validation

COLUMNS = ("score", "±", "second_score", "log_prob", "kl", "distinct_2", "temperature", "seconds")
BASE = "the model alone"


def opened(run: str) -> Writer:
    """What writes with a run's language model."""
    cfg = configuration(Path(run))
    found = trained(Path(run), torch.device("cpu"), cfg)
    torch.set_num_threads(cfg.execution.threads)
    return Writer(cfg, found.network)


def half_interval(values: list[float]) -> float:
    """Half of the 95 % interval of a mean."""
    if len(values) < 2:
        return float("nan")
    return float(stats.t.ppf(0.975, len(values) - 1)) * stdev(values) / sqrt(len(values))


def row(name: str, texts: list[Text], seconds: float, temperature: float | None = None) -> dict[str, Any]:
    """A line of the table, of the texts of one run."""
    scores = [text.score or 0.0 for text in texts]
    return {"name": name, **summary(texts), "±": half_interval(scores), "temperature": temperature, "seconds": seconds}


def together(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The line of several runs: means, and the interval of their scores."""
    if len(rows) == 1:
        return rows[0]
    keys = [key for key in rows[0] if key != "name" and all(one.get(key) is not None for one in rows)]
    means = {key: fmean(one[key] for one in rows) for key in keys}
    return {"name": rows[0]["name"], **means, "±": half_interval([one["score"] for one in rows]), "runs": len(rows)}


def best_of(texts: list[Text], copies: int, n: int) -> list[Text]:
    """The best of every n texts of a prompt; `texts` holds the prompts one after another, `copies` times."""
    prompts = len(texts) // copies
    groups = [
        [texts[c * prompts + p] for c in range(low, low + n)] for p in range(prompts) for low in range(0, copies, n)
    ]
    return [max(group, key=lambda text: text.score or 0.0) for group in groups]


def timed(write: Callable[[], list[Text]]) -> tuple[list[Text], float]:
    began = perf_counter()
    return write(), perf_counter() - began


def alone(writer: Writer, asked: list[Prompt], copies: int) -> list[dict[str, Any]]:
    """The language model as it is, and the best of 4 and of 16 of its texts."""
    texts, seconds = timed(lambda: writer.write(asked * copies, writer.output(inf), seed=1))
    rows = [row(BASE, texts, seconds)]
    for n in (4, 16):
        if copies % n == 0:
            bound = (log(n) - (n - 1) / n) / writer.length  # nats a token; Beirami et al. (2024)
            rows.append(row(f"best of {n}", best_of(texts, copies, n), seconds) | {"kl": bound})
    return rows


def guided(
    name: str, writer: Writer, asked: list[Prompt], copies: int, kl: float, exported: bool
) -> list[dict[str, Any]]:
    """A run's policy at a KL and, where it is asked for, what is exported of it."""
    prompts = validation(writer.cfg)
    temperature = writer.temperature_for(kl, prompts)
    rows = [
        row(f"{name}, KL {kl:g}", *timed(lambda: writer.write(asked * copies, writer.output(temperature), seed=2)))
        | {"temperature": temperature}
    ]
    if exported:
        ways = {"its temperature": temperature, "that KL": writer.temperature_for(kl, prompts, exported=True)}
        for at, one in ways.items():
            texts = timed(lambda one=one: writer.write(asked * copies, writer.stock(one), seed=2))
            rows.append(row(f"{name}, KL {kl:g}, exported at {at}", *texts) | {"temperature": one})
    return rows


def show(found: dict[str, Any]) -> None:
    numbers = [found.get(name) for name in COLUMNS]
    print(f"{found['name']:<44}", *("      –" if x is None else f"{x:7.3f}" for x in numbers), flush=True)


def draw(rows: list[dict[str, Any]], path: str) -> None:
    """Score against KL, a line for each name, with intervals."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    lines: dict[str, list[dict[str, Any]]] = {}
    for one in rows:
        name = one["name"]
        lines.setdefault("best of n" if name.startswith("best of") else name.partition(", KL")[0], []).append(one)
        if "exported" in name:
            lines[name.partition(", KL")[0]].pop()
    base = lines.pop(BASE)[0]
    axes.errorbar([0], [base["score"]], [base["±"]], fmt="o", color="black", capsize=3, label=BASE)
    for name, found in lines.items():
        points = sorted((one["kl"], one["score"], one["±"]) for one in found)
        kl, score, half = zip(*points, strict=True)
        axes.errorbar([0, *kl], [base["score"], *score], [0, *half], marker="o", capsize=3, label=name)
    axes.set(xlabel="KL from the language model, nats a token", ylabel="score of texts after test prompts")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)


def write_log(path: Path, writer: Writer, copies: int) -> None:
    """Texts that the language model writes alone after the prompts of training, as recorded data with their scores."""
    asked = prompts_of(parts.language_options(writer.cfg), "train") * copies
    with path.open("w") as file:
        for text in writer.write(asked, writer.output(inf), seed=0):
            line = {"prompt": text.prompt, "completion": text.text, "reward": text.score}
            file.write(json.dumps(line) + "\n")
    print(f"{len(asked)} texts in {path}")


def main() -> None:
    given = dict(argument.partition("=")[::2] for argument in sys.argv[1:])
    targets = [float(kl) for kl in given.pop("kl", "0.1,0.3").split(",")]
    copies, out, picture = int(given.pop("copies", "4")), given.pop("out", None), given.pop("picture", None)
    where, exported = given.pop("log", None), given.pop("exported", "").split(",")
    runs = {name: listed.split(",") for name, listed in given.items()}
    first = opened(next(iter(runs.values()))[0])
    if where is not None:
        write_log(Path(where), first, copies)
        return
    rows: list[dict[str, Any]] = []
    print(f"{'':<44}", *(f"{name[:7]:>7}" for name in COLUMNS))

    def note(found: dict[str, Any]) -> None:
        rows.append(found)
        show(found)

    asked = prompts_of(parts.language_options(first.cfg), "test")
    for found in alone(first, asked, copies):
        note(found)
    for name, directories in runs.items():
        for kl in targets:
            each = [guided(name, opened(one), asked, copies, kl, name in exported) for one in directories]
            for same in zip(*each, strict=True):
                note(together([*same]))
    if out:
        Path(out).write_text(json.dumps(rows, indent=1))
    if picture:
        draw(rows, picture)


if __name__ == "__main__":
    main()
