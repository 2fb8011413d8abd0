"""Evaluate a run's newest checkpoint: python -m dqn.evaluate run=RUN episodes=100."""

import json
import sys

import torch
from omegaconf import OmegaConf

from dqn import parts
from dqn.agent import trained
from dqn.cli import front_door, nearest, run_directory
from dqn.execution.device import choose_device
from dqn.tracking.checkpoint import write_text
from dqn.types import UsageError

OPTIONS = {"run": None, "episodes": 100, "seed": None, "epsilon": None, "device": "auto"}
USAGE = "usage: python -m dqn.evaluate run=RUN [episodes=100] [seed=…] [epsilon=…] [device=auto]"


def evaluate() -> None:
    """Whole episodes with raw rewards; writes `evaluation.json` beside the run's result and changes nothing else."""
    if {"-h", "--help"} & {*sys.argv[1:]}:
        print(USAGE)
        return
    options = OmegaConf.create(OPTIONS)
    for argument in sys.argv[1:]:
        name = argument.partition("=")[0]
        if "=" not in argument or name not in OPTIONS:
            raise UsageError(f"{name} is not an option{nearest(name, [*OPTIONS])}; {USAGE}.")
    options.merge_with_dotlist(sys.argv[1:])
    if options.run is None:
        raise UsageError(f"No run was named; {USAGE}.")
    if isinstance(options.episodes, float) and options.episodes.is_integer():  # 1e3
        options.episodes = int(options.episodes)
    if not isinstance(options.episodes, int) or options.episodes < 1:
        raise UsageError(f"episodes must be a whole number ≥ 1, got {options.episodes!r}.")
    if options.seed is not None and not isinstance(options.seed, int):
        raise UsageError(f"seed must be a whole number, got {options.seed!r}.")
    if options.epsilon is not None and not (isinstance(options.epsilon, (int, float)) and 0 <= options.epsilon <= 1):
        raise UsageError(f"epsilon must be between 0 and 1, got {options.epsilon!r}.")
    directory = run_directory("run", str(options.run))
    device, _ = choose_device(options.device)
    cfg, envs, network, snapshot = trained(directory, device)
    torch.set_num_threads(cfg.execution.threads)
    evaluator = parts.Evaluator(cfg, network, device, envs)
    result = evaluator(options.episodes, options.epsilon, options.seed)
    envs.close()
    result |= {"env_steps": snapshot.counters["env_steps"], "device": str(device)}
    print(f"{options.episodes} episodes at ε={result['epsilon']:g}: {result['mean']:.2f} ± {result['std']:.2f}")
    write_text(directory / "evaluation.json", json.dumps(result, indent=1))
    print(f"Every return is in {(directory / 'evaluation.json').resolve()}")


def main() -> None:
    front_door(evaluate)


if __name__ == "__main__":
    main()
