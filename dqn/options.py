"""What every option may be; what cannot be meant is refused here, each in one sentence."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from dqn.cli import nearest, option_names
from dqn.types import UsageError

AT_LEAST = {  # whole numbers and their smallest value
    "seed": 0, "steps": 1, "n_step": 1, "learning_starts": 0, "train_every": 1, "updates": 1, "env.num_envs": 1,
    "replay.capacity": 1, "replay.batch_size": 1, "target.period": 0, "execution.threads": 1, "tracking.log_every": 1,
    "tracking.checkpoint_every": 0, "tracking.evaluate_every": 0, "tracking.evaluate_episodes": 1,
    "tracking.final_episodes": 1, "tracking.evaluate_cap": 1,
}  # fmt: skip
BETWEEN = {  # real numbers and their bounds
    "gamma": (0.0, 1.0), "optimizer.lr": (0.0, float("inf")), "target.polyak": (0.0, 1.0),
    "max_grad_norm": (0.0, float("inf")), "tracking.evaluate_epsilon": (0.0, 1.0),
}  # fmt: skip
PLAIN = {  # sections that are read here, option by option; every other option is an argument of a part
    "": {
        "torso", "layer", "head", "backup", "transform", "replay", "exploration", "target", "optimizer",
        "lr_schedule", "env", "execution", "tracking", "seed", "steps", "gamma", "n_step", "learning_starts",
        "train_every", "updates", "max_grad_norm", "device", "resume", "run", "tuned",
    },
    "replay": {"capacity", "batch_size", "sampler"},
    "target": {"period", "polyak"},
    "execution": {"engine", "threads"},
    "run": {"dir"},
    "tuned": {
        "hidden", "norm", "lr", "target_period", "capacity", "batch_size", "epsilon_end", "epsilon_steps",
    },
    "tracking": {
        "log_every", "checkpoint_every", "evaluate_every", "evaluate_episodes", "final_episodes",
        "evaluate_epsilon", "evaluate_cap",
    },
}  # fmt: skip


def check(cfg: DictConfig) -> None:
    """Refuse what cannot be meant, each in one sentence. Errors: UsageError."""
    for section, known in PLAIN.items():
        node = OmegaConf.select(cfg, section) if section else cfg
        for name in node:
            if name not in known:
                full = f"{section}.{name}" if section else str(name)
                others = [other for other in option_names(cfg) if other != full]
                raise UsageError(f"{full} is not an option{nearest(full, others)}: remove it.")
    for name, least in AT_LEAST.items():
        value = OmegaConf.select(cfg, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UsageError(f"{name} must be a whole number ≥ {least}, got {value!r}.")
    for name, (low, high) in BETWEEN.items():
        value = OmegaConf.select(cfg, name)
        if value is None and name in ("max_grad_norm", "target.polyak"):
            continue
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value <= high:
            bounds = f"between {low:g} and {high:g}" if high < float("inf") else f"≥ {low:g}"
            raise UsageError(f"{name} must be a number {bounds}, got {value!r}.")
