"""Write with a language model that a run guides: python -m dqn.generate run=RUN prompt="The weather is" kl=0.3."""

import html
import sys
from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import Any

import torch

from dqn.agent import configuration, trained
from dqn.config.cli import names, real, run_directory, say, text, verb, verb_options, whole
from dqn.device import choose_device
from dqn.envs.prompts import Prompt
from dqn.errors import UsageError
from dqn.language import Text, Writer, summary, validation

OPTIONS = {
    "run": text, "prompt": text, "kl": real(0, 1e6), "temperature": real(0, inf), "max_tokens": whole(1),
    "samples": whole(1), "seed": whole(0), "out": text, "model": text, "device": text, "trust": names,
}  # fmt: skip
USAGE = (
    'usage: python -m dqn.generate run=RUN prompt="…" [kl=0.3 | temperature=…] [max_tokens=…] [samples=1] [seed=0] '
    "[out=FILE.html] [model=FOLDER] [device=auto] [trust=[module,…]]"
)


class Stream:
    """Prints a text as the library's `generate` writes it, a piece for each token."""

    def __init__(self, lm: Any, label: str):
        self.lm, self.tokens, self.shown, self.prompt = lm, [], "", True
        print(label, end="", flush=True)

    def put(self, tokens: Any) -> None:
        """The library gives the prompt first, then a token at a time."""
        if self.prompt:
            self.prompt = False
            return
        self.tokens += tokens.flatten().tolist()
        now = self.lm.decode(self.tokens)
        print(now[len(self.shown) :], end="", flush=True)
        self.shown = now

    def end(self) -> None:
        """The text is written."""
        print(flush=True)


def generate(arguments: list[str]) -> None:
    """Base and guided texts side by side, with their scores and what each token was worth."""
    given = verb_options(arguments, USAGE, OPTIONS, "run")
    if not given.get("prompt"):
        raise UsageError(f"No prompt was named; {USAGE}.")
    if "kl" in given and "temperature" in given:
        raise UsageError("kl and temperature say the same thing in two ways: give one of them.")
    directory, seed = run_directory("run", given["run"]), given.get("seed", 0)
    device, _ = choose_device(given.get("device", "auto"))
    found = trained(directory, device, configuration(directory, given.get("trust", ()), given.get("model")))
    torch.set_num_threads(found.cfg.execution.threads)
    writer = Writer(found.cfg, found.network, device)
    temperature = given.get("temperature", writer.temperature)
    if "kl" in given:
        temperature = writer.temperature_for(given["kl"], validation(found.cfg), seed)
        say(f"temperature {temperature:.4g}, found on validation prompts for {given['kl']:g} nats a token")
    prompts = [Prompt(given["prompt"], "prompt")] * given.get("samples", 1)
    written = {}
    for label, value in (("base  ", inf), ("guided", temperature)):
        streamer = Stream(writer.lm, f"{label}  {given['prompt']}") if len(prompts) == 1 else None
        how = {"seed": seed, "max_tokens": given.get("max_tokens"), "streamer": streamer}
        written[label.strip()] = writer.write(prompts, writer.output(value), **how)
    for label, texts in written.items():
        _report(label, texts)
    if "out" in given:
        Path(given["out"]).write_text(page(written), encoding="utf-8")
        say(f"The heat map is in {Path(given['out']).resolve()}")


def _report(label: str, texts: Sequence[Text]) -> None:
    """Every text with its tokens coloured on a terminal, and means."""
    for one in texts:
        shown = coloured(one) if sys.stdout.isatty() else one.text
        say(f"{label:<8}{one.prompt}|{shown}")
    means = summary(texts)
    names_ = {
        "score": "score",
        "second_score": "second score",
        "log_prob": "log-prob",
        "kl": "KL",
        "distinct_2": "distinct-2",
    }
    say(f"{'':<8}" + ", ".join(f"{words} {means[name]:.3f}" for name, words in names_.items() if name in means))


def _strengths(one: Text) -> list[float]:
    """The advantages of the tokens between −1 and 1, as shares of the largest."""
    largest = max(map(abs, one.advantages), default=0.0) or 1.0
    return [advantage / largest for advantage in one.advantages]


def coloured(one: Text) -> str:
    """The text for a terminal: green where a token was worth more than the model's own choice, red where less."""
    parts = []
    for piece, strength in zip(one.pieces, _strengths(one), strict=True):
        level = 255 - round(180 * abs(strength))
        red, green = (level, 255) if strength > 0 else (255, level)
        parts.append(f"\033[38;2;{red};{green};{level}m{piece}\033[0m")
    return "".join(parts)


def page(written: dict[str, Sequence[Text]]) -> str:
    """The texts as a page of HTML: the colour of a token is what it was worth, its number stands in its title."""
    rows = []
    for label, texts in written.items():
        for one in texts:
            cells = []
            for piece, strength, value in zip(one.pieces, _strengths(one), one.advantages, strict=True):
                hue = 120 if strength > 0 else 0
                style = f"background:hsla({hue},80%,50%,{abs(strength):.2f})"
                cells.append(f'<span style="{style}" title="{value:+.3f}">{html.escape(piece)}</span>')
            score = "" if one.score is None else f"{one.score:.3f}"
            rows.append(
                f"<tr><th>{label}</th><td>{html.escape(one.prompt)}{''.join(cells)}</td><td>{score}</td>"
                f"<td>{one.log_prob:.2f}</td><td>{one.kl:.2f}</td></tr>"
            )
    head = "<tr><th></th><th>text</th><th>score</th><th>log-prob</th><th>KL</th></tr>"
    return f'<!doctype html><meta charset="utf-8"><title>dqn</title><table>{head}{"".join(rows)}</table>\n'


def main() -> None:
    verb(generate, USAGE)


if __name__ == "__main__":
    main()
