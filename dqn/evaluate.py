"""Evaluate a run's newest checkpoint: python -m dqn.evaluate run=RUN episodes=100."""

import json
import sys

import torch

from dqn.agent import trained
from dqn.config import parts
from dqn.config.cli import front_door, names, real, run_directory, say, text, verb_options, whole
from dqn.config.evaluator import Evaluator
from dqn.device import choose_device
from dqn.networks.records import inner
from dqn.tracking.checkpoint import write_text
from dqn.tracking.logger import start_text_log

OPTIONS = {
    "run": text, "episodes": whole(1), "seed": whole(0), "epsilon": real(0, 1), "device": text, "trust": names,
}  # fmt: skip
USAGE = (
    "usage: python -m dqn.evaluate run=RUN [episodes=100] [seed=…] [epsilon=…] [device=auto] "
    "[trust=[module,…] whose parts or environments the run uses]"
)


def evaluate() -> None:
    """Whole episodes with raw rewards; writes `evaluation.json` beside the run's result and changes nothing else."""
    if {"-h", "--help"} & {*sys.argv[1:]}:
        say(USAGE)
        return
    given = verb_options(sys.argv[1:], USAGE, OPTIONS, "run")
    directory = run_directory("run", given["run"])
    device, _ = choose_device(given.get("device", "auto"))
    found = trained(directory, device, given.get("trust", ()))
    cfg, counters = found.cfg, found.snapshot.counters
    torch.set_num_threads(cfg.execution.threads)
    cfg.tracking.evaluate_in = "own"
    evaluator = Evaluator(cfg, found.network, device, parts.acting_program(found.cfg, device))
    if inner(found.spec).states:
        evaluator.know_optimal()
    start_text_log(None)
    result = evaluator(given.get("episodes", 100), given.get("epsilon"), given.get("seed"), longest=counters["longest"])
    evaluator.close()
    result |= {"env_steps": counters["env_steps"], "device": str(device)}
    write_text(directory / "evaluation.json", json.dumps(result, indent=1))
    say(f"{result['episodes']} episodes at epsilon {result['epsilon']:g}: {result['mean']:.2f} ± {result['std']:.2f}")
    say(f"Every return is in {(directory / 'evaluation.json').resolve()}")


def main() -> None:
    front_door(evaluate)


if __name__ == "__main__":
    main()
