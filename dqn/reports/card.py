"""The card of a packed agent: README.md in the form of the Hugging Face hub, YAML in front and Markdown after it."""

from math import isfinite
from typing import Any

import yaml

from dqn.reports.records import Record

SHOWN = (
    "steps", "gamma", "n_step", "lambda_", "torso", "core", "layer", "output", "head", "backup", "transform",
    "replay.sampler", "replay.capacity", "replay.batch_size", "exploration", "optimizer", "optimizer.lr",
    "target.period", "env.num_envs", "seed",
)  # fmt: skip  # options that the card names; the others are in config.yaml
USE = """\
## Use it

```
pip install dqn-family
hf download USER/NAME --local-dir agent
python -m dqn.evaluate run=agent episodes=100
```

```python
import dqn

agent = dqn.load("agent"{trusted})
action = agent.act(obs)
```

Nothing in this folder is executed when it is opened: the weights are safetensors, all else is JSON, YAML and text."""
SPECIAL = str.maketrans({"`": "'", "|": "¦"})


def code(text: Any) -> str:
    """A text as Markdown's code, in which nothing is markup; on one line, and short."""
    plain = " ".join("".join(letter if letter.isprintable() else " " for letter in str(text)).split())
    return f"`{plain.translate(SPECIAL)[:200] or '–'}`"


def card(run: Record, evaluation: dict[str, Any] | None, trust: list[str], recording: bool, license: str | None) -> str:
    """The card of a run that is packed, with what an evaluation of its weights says.

    `trust`: modules that whoever opens it must trust. `recording`: replay.gif lies beside the card.
    """
    algorithm, task = run.options.get("algorithm", "dqn"), run.task
    front = yaml.safe_dump(_front(algorithm, task, evaluation, license), sort_keys=False, allow_unicode=True)
    options = [(code(name), code(run.options[name])) for name in SHOWN if name in run.options]
    parts = [
        f"---\n{front}---",
        f"# {code(algorithm)} on {code(task)}",
        "A greedy agent of the deep Q-learning family, trained with `dqn-family`.",
        "![An episode](replay.gif)" if recording else "",
        _results(run, evaluation),
        USE.format(trusted=f", trust={trust!r}" if trust else ""),
        f"It needs code of {', '.join(map(code, trust))}, which you install and trust yourself." if trust else "",
        f"## How it was trained\n\n{_table(options)}" if options else "",
        _made(run),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front(algorithm: str, task: str, evaluation: dict[str, Any] | None, license: str | None) -> dict[str, Any]:
    """What the hub reads: https://huggingface.co/docs/hub/model-cards."""
    tags = ["deep-reinforcement-learning", "reinforcement-learning", "deep-q-learning", algorithm, task]
    front: dict[str, Any] = {"license": license} if license else {}
    front |= {"library_name": "dqn-family", "pipeline_tag": "reinforcement-learning", "tags": tags}
    if evaluation is not None:
        reward = f"{evaluation['mean']:.2f} +/- {evaluation['std']:.2f}"
        metric = {"type": "mean_reward", "name": "mean_reward", "value": reward, "verified": False}
        result = {
            "task": {"type": "reinforcement-learning", "name": "reinforcement-learning"},
            "dataset": {"type": task, "name": task},
            "metrics": [metric],
        }
        front["model-index"] = [{"name": algorithm, "results": [result]}]
    return front


def _results(run: Record, evaluation: dict[str, Any] | None) -> str:
    if evaluation is None:
        return "## Results\n\nIt was not evaluated: `python -m dqn.evaluate run=agent` does it."
    how = f"with epsilon {evaluation['epsilon']:g}" if evaluation.get("epsilon") else "greedy"
    rows = [
        ("mean return", f"{evaluation['mean']:.2f} ± {evaluation['std']:.2f}"),
        ("episodes", f"{evaluation['episodes']:,}, {how}"),
        ("env_steps of training", f"{int(evaluation['env_steps']):,}"),
    ]
    return "## Results\n\n" + _table(rows)


def _made(run: Record) -> str:
    """Versions and machine, as far as they are known."""
    rows = []
    for name in ("machine", "versions"):
        known = run.result.get(name)
        if isinstance(known, dict):
            rows.append((name, code(", ".join(f"{key} {value}" for key, value in known.items()))))
    if isfinite(seconds := run.number("seconds")):
        rows.append(("seconds", f"{seconds:,.0f}"))
    return "## Made with\n\n" + _table(rows) if rows else ""


def _table(rows: list[tuple[str, str]]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])
