"""Evaluate a run's newest checkpoint: python -m dqn.evaluate run=RUN episodes=100."""

import json

from dqn.agent import load
from dqn.config.cli import names, real, say, text, verb, verb_options, whole
from dqn.tracking.checkpoint import write_text

OPTIONS = {
    "run": text, "episodes": whole(1), "seed": whole(0), "epsilon": real(0, 1), "device": text, "trust": names,
}  # fmt: skip
USAGE = (
    "usage: python -m dqn.evaluate run=RUN [episodes=100] [seed=…] [epsilon=…] [device=auto] "
    "[trust=[module,…] whose parts or environments the run uses]"
)


def evaluate(arguments: list[str]) -> None:
    """Whole episodes with raw rewards; writes `evaluation.json` beside the run's result and changes nothing else."""
    given = verb_options(arguments, USAGE, OPTIONS, "run")
    agent = load(given["run"], given.get("device", "auto"), given.get("trust", ()))
    assert agent.directory is not None
    directory = agent.directory
    result = agent.evaluate(given.get("episodes", 100), given.get("seed"), given.get("epsilon"))
    write_text(directory / "evaluation.json", json.dumps(result, indent=1))
    say(f"{result['episodes']} episodes at epsilon {result['epsilon']:g}: {result['mean']:.2f} ± {result['std']:.2f}")
    say(f"Every return is in {(directory / 'evaluation.json').resolve()}")


def main() -> None:
    verb(evaluate, USAGE)


if __name__ == "__main__":
    main()
