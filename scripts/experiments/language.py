"""Reward against KL on a task of env=lm: the language model, best of n, and runs that guide it, on test prompts.

    python scripts/experiments/language.py kl=0.1,0.3 copies=4 NAME=RUN … [out=FILE.json]

A run's temperature for a wanted KL is found on validation prompts. Of a run whose values can be folded, the exported
model is measured, too, at the same KL of its own and at the guided policy's temperature.
"""

from __future__ import annotations

import json
import sys
from math import inf, log, sqrt
from pathlib import Path
from statistics import stdev
from time import perf_counter
from typing import Any

import torch

from dqn.agent import trained
from dqn.config import parts
from dqn.envs.lm import prompts_of
from dqn.errors import UsageError
from dqn.language import Text, Writer, summary, validation

COLUMNS = ("score", "error", "second_score", "log_prob", "kl", "distinct_2", "temperature", "seconds")


def row(name: str, texts: list[Text], began: float, temperature: float | None = None) -> dict[str, Any]:
    """A line of the table; `error` is the standard error of the score."""
    scores = [text.score or 0.0 for text in texts]
    error = stdev(scores) / sqrt(len(scores))
    return {
        "name": name,
        **summary(texts),
        "error": error,
        "temperature": temperature,
        "seconds": perf_counter() - began,
    }


def best_of(texts: list[Text], copies: int, n: int) -> list[Text]:
    """The best of every n texts of a prompt; `texts` holds the prompts one after another, `copies` times."""
    prompts = len(texts) // copies
    groups = [
        [texts[c * prompts + p] for c in range(low, low + n)] for p in range(prompts) for low in range(0, copies, n)
    ]
    return [max(group, key=lambda text: text.score or 0.0) for group in groups]


def show(found: dict[str, Any]) -> None:
    numbers = [found.get(name) for name in COLUMNS]
    print(f"{found['name']:<28}", *("      –" if x is None else f"{x:7.3f}" for x in numbers), flush=True)


def main() -> None:
    given = dict(argument.partition("=")[::2] for argument in sys.argv[1:])
    targets = [float(kl) for kl in given.pop("kl", "0.1,0.3").split(",")]
    copies, out = int(given.pop("copies", "4")), given.pop("out", None)
    rows: list[dict[str, Any]] = []
    print(f"{'':<28}", *(f"{name[:7]:>7}" for name in COLUMNS))

    def note(*what: Any) -> None:
        rows.append(row(*what))
        show(rows[-1])

    for number, (name, run) in enumerate(given.items()):
        found = trained(Path(run), torch.device("cpu"))
        torch.set_num_threads(found.cfg.execution.threads)
        writer, asked = Writer(found.cfg, found.network), prompts_of(parts.language_options(found.cfg), "test")
        if number == 0:
            began = perf_counter()
            base = writer.write(asked * copies, writer.output(inf), seed=1)
            note("base", base, began)
            for n in (4, 16):
                if copies % n == 0:
                    note(
                        f"best of {n} (KL ≤ {(log(n) - (n - 1) / n) / writer.length:.3f})",
                        best_of(base, copies, n),
                        began,
                    )
        for kl in targets:
            began = perf_counter()
            temperature = writer.temperature_for(kl, validation(found.cfg))
            note(
                f"{name}, guided", writer.write(asked * copies, writer.output(temperature), seed=2), began, temperature
            )
            try:
                began = perf_counter()
                note(
                    f"{name}, exported",
                    writer.write(asked * copies, writer.stock(temperature), seed=2),
                    began,
                    temperature,
                )
                began, own = perf_counter(), writer.temperature_for(kl, validation(found.cfg), exported=True)
                note(f"{name}, exported, own KL", writer.write(asked * copies, writer.stock(own), seed=2), began, own)
            except UsageError as error:
                print(f"{name}: {error}")
    if out:
        Path(out).write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
