"""What every option may be; what cannot be meant is refused here, each in one sentence."""

import os
from math import inf, isfinite
from types import NoneType
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dqn.cli import nearest, option_names
from dqn.types import UsageError

AT_LEAST = {  # whole numbers and their smallest value
    "seed": 0, "steps": 1, "n_step": 1, "learning_starts": 0, "train_every": 1, "updates": 1, "env.num_envs": 1,
    "replay.capacity": 1, "replay.batch_size": 1, "replay.length": 1, "replay.burn_in": 0, "replay.stride": 1,
    "passes.epochs": 1, "passes.minibatches": 1, "target.period": 0, "execution.threads": 1, "tracking.log_every": 1,
    "tracking.checkpoint_every": 0, "tracking.evaluate_every": 0, "tracking.evaluate_episodes": 1,
    "tracking.final_episodes": 1, "tracking.evaluate_cap": 1,
    "tracking.evaluate_envs": 1, "env.max_episode_steps": 1,
}  # fmt: skip
MOST_THREADS = 1024  # torch dies of more without a word
ABOVE = 5e-324  # any number above 0
BETWEEN = {  # real numbers and their bounds
    "gamma": (0.0, 1.0), "lambda_": (0.0, 1.0), "optimizer.lr": (0.0, inf), "target.polyak": (0.0, 1.0),
    "max_grad_norm": (0.0, inf), "reward_clip": (ABOVE, inf), "tracking.evaluate_epsilon": (0.0, 1.0),
    "backup.temperature": (ABOVE, inf), "backup.epsilon": (0.0, 1.0), "backup.scale": (0.0, inf),
    "backup.floor": (-inf, 0.0), "lr_schedule.start": (0.0, inf), "lr_schedule.end": (0.0, inf),
}  # fmt: skip
ENDLESS = ("max_grad_norm", "reward_clip")  # may be inf
OPTIONAL = (  # may be null, or not be there
    "target.polyak", "lambda_", "env.max_episode_steps", *ENDLESS,
    *(name for name in BETWEEN if name.startswith(("backup.", "lr_schedule."))),
)  # fmt: skip
ACTORS = ("local", "process")
PLACES = ("torso", "output")  # of the last hidden layer
SWITCHES = ("execution.channels_last", "replay.stored_state")
PLAIN = {  # sections that are read here, option by option; every other option is an argument of a part
    "": {
        "torso", "core", "layer", "output", "head", "backup", "transform", "terms", "replay", "exploration", "target",
        "optimizer", "lr_schedule", "env", "execution", "tracking", "seed", "steps", "gamma", "n_step", "lambda_",
        "passes", "learning_starts", "train_every", "updates", "max_grad_norm", "reward_clip", "dense_in",
        "device", "resume", "run", "tuned",
    },
    "replay": {"capacity", "batch_size", "sampler", "length", "burn_in", "stride", "stored_state", "path", "device",
               "frame_stack", "frame_padding"},
    "passes": {"epochs", "minibatches"},
    "target": {"period", "polyak"},
    "execution": {"engine", "actor", "threads", "precision", "channels_last"},
    "run": {"dir"},
    "tuned": {
        "hidden", "norm", "dense", "core_hidden", "loss", "lr", "eps", "target_period", "capacity", "batch_size",
        "priority_exponent", "importance_start", "importance_end", "v_min", "v_max", "quantiles", "samples",
        "epsilon_end", "epsilon_steps",
    },
    "tracking": {
        "log_every", "checkpoint_every", "evaluate_every", "evaluate_episodes", "final_episodes",
        "evaluate_epsilon", "evaluate_cap", "evaluate_envs",
    },
}  # fmt: skip
ALWAYS = ("", "passes", "target", "execution", "tracking")  # sections of which every option is there


def check(cfg: DictConfig) -> None:
    """Refuse what cannot be meant, each in one sentence. Errors: UsageError."""
    _names(cfg)
    if OmegaConf.is_missing(cfg.replay, "path"):
        raise UsageError("replay.path has no value: name a run's directory or a Minari dataset with replay.path=…")
    _kinds(cfg)
    _finite(cfg)
    _whole(cfg)
    for name, (low, high) in BETWEEN.items():
        value = OmegaConf.select(cfg, name)
        if value is None and name in OPTIONAL:
            continue
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value <= high:
            bounds = f"between {low:g} and {high:g}" if high < inf else f"≥ {low:g}"
            raise UsageError(f"{name} must be a number {'above 0' if low == ABOVE else bounds}, got {value!r}.")


def _names(cfg: DictConfig) -> None:
    for section, known in PLAIN.items():
        node = OmegaConf.select(cfg, section) if section else cfg
        prefix, missing = f"{section}." if section else "", sorted(known - {*node})
        if missing and section in ALWAYS:
            raise UsageError(
                f"{prefix}{missing[0]} is missing, as in a run of an earlier version: add it to the run's config.yaml."
            )
        for name in node:
            if name not in known:
                full = f"{prefix}{name}"
                others = [other for other in option_names(cfg) if other != full]
                raise UsageError(f"{full} is not an option{nearest(full, others)}: remove it.")


def _whole(cfg: DictConfig) -> None:
    for name, least in AT_LEAST.items():
        value = OmegaConf.select(cfg, name)
        if value is None and (name in OPTIONAL or (name == "replay.capacity" and "path" in cfg.replay)):
            continue  # of a dataset as much as was recorded
        if isinstance(value, float) and value.is_integer():  # 1e6
            OmegaConf.update(cfg, name, value := int(value))
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UsageError(f"{name} must be a whole number ≥ {least}, got {value!r}.")
    if cfg.execution.threads > MOST_THREADS:
        raise UsageError(f"execution.threads must be {MOST_THREADS} or less, got {cfg.execution.threads}.")


def _kinds(cfg: DictConfig) -> None:
    given = {"tuned.hidden": int, "output.hidden": int, "env.imports": str}
    for name, kind in given.items():
        value = OmegaConf.select(cfg, name, default=OmegaConf.create([]))
        if not OmegaConf.is_list(value) or not all(isinstance(one, kind) for one in value):
            example = "[256,256]" if kind is int else "[package]"
            raise UsageError(f"{name} must be a list as {example}, got {value!r}.")
    if not isinstance(cfg.env.get("wrappers"), (DictConfig, NoneType)):
        raise UsageError("env.wrappers names each wrapper: put one around with +env.wrappers.NAME._target_=CLASS.")
    if cfg.dense_in not in PLACES:
        raise UsageError(f"dense_in must be {' or '.join(PLACES)}, got {cfg.dense_in!r}.")
    if cfg.execution.actor not in ACTORS:
        raise UsageError(f"execution.actor must be {' or '.join(ACTORS)}, got {cfg.execution.actor!r}.")
    for name in SWITCHES:
        if not isinstance(value := OmegaConf.select(cfg, name), bool):
            raise UsageError(f"{name} must be true or false, got {value!r}.")


def _finite(cfg: DictConfig) -> None:
    """No option but an environment's own may be nan, and few may be inf."""
    for name in option_names(cfg):
        value = OmegaConf.select(cfg, name, throw_on_missing=False, throw_on_resolution_failure=False)
        endless = name in ENDLESS and value == inf
        if isinstance(value, float) and not isfinite(value) and not endless and not name.startswith("env."):
            raise UsageError(f"{name} must be a number that is finite, got {value}.")


def doubts(cfg: DictConfig, lr_schedule: Any) -> list[str]:
    """What can be meant, and seldom is: each a sentence that says what to change."""
    nearly = max(0, cfg.steps * 9 // 10)
    doubtful = {
        f"Nothing is learnt before learning_starts={cfg.learning_starts:,}: lower it, or raise steps={cfg.steps:,}.": (
            cfg.learning_starts >= cfg.steps
        ),
        f"The lr is 0 for the last tenth of {cfg.steps:,} steps or more: raise lr_schedule.steps, or set "
        "lr_schedule.end above 0.": cfg.steps > 10 and lr_schedule is not None and lr_schedule(nearly) == 0,
        "Wrappers that normalise begin their statistics anew in every evaluation and resume, and NormalizeReward "
        "changes what is reported: take them from env.wrappers, or say so beside the results.": any(
            "Normalize" in str(node.get("_target_")) for node in (cfg.env.get("wrappers") or {}).values() if node
        ),
        f"execution.actor=process wants a core for itself beside execution.threads={cfg.execution.threads}, and there "
        f"are {_cores()} in all: set execution.actor=local, or fewer threads.": (
            cfg.execution.actor == "process" and _cores() <= cfg.execution.threads
        ),
        "A single environment stands on the first rung of exploration.ladder for ever: set env.num_envs above 1, or "
        "choose exploration=epsilon_greedy.": cfg.exploration.get("ladder", 0) > 0 and cfg.env.num_envs == 1,
    }
    return [sentence for sentence, doubted in doubtful.items() if doubted]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fit(cfg: DictConfig, head: Any, sampler: Any, state_size: int) -> None:
    """Refuse parts that do not go together, each pair in one sentence that says what to change. Errors: UsageError."""
    replay, envs = cfg.replay, cfg.env.num_envs
    phase = envs * replay.length
    elsewhere = cfg.execution.actor == "process"
    newest, sequence = sampler.newest, replay.length > 1
    passes = cfg.passes.epochs * cfg.passes.minibatches
    refused = {
        "execution.actor=process acts in Gymnasium's environments, not in tensor worlds or recorded data: set "
        "execution.actor=local": elsewhere and ("path" in replay or "world" in cfg.env),
        "execution.actor=process steps its environments itself: set env.vectorization=sync, or execution.actor=local": (
            elsewhere and cfg.env.get("vectorization") == "async"
        ),
        "lambda_ mixes returns along a sequence: set replay.length above 1 (replay=rollout), or lambda_=null": (
            cfg.lambda_ is not None and not sequence
        ),
        "lambda_ mixes returns of every length by itself: set n_step=1": cfg.lambda_ is not None and cfg.n_step > 1,
        "lambda_ needs a head with a single number per target: choose head=expected or hl_gauss, or lambda_=null": (
            cfg.lambda_ is not None and not getattr(head, "scalar", False)
        ),
        f"replay=newest and rollout use every transition once: set train_every={phase} (env.num_envs × replay.length; "
        "fewer whole ticks leave room for the rows that ends take), updates=1 and n_step=1": (
            newest and (cfg.train_every > phase or cfg.train_every % envs > 0 or cfg.updates * cfg.n_step > 1)
        ),
        "replay=newest sees only the newest row of each environment, where others reset meanwhile: set "
        "env.autoreset=same_step or env.num_envs=1": (
            newest and not sequence and envs > 1 and cfg.env.get("autoreset") == "next_step"
        ),
        f"replay=newest and rollout learn from all environments at once: set replay.batch_size={envs}": (
            newest and replay.batch_size != envs
        ),
        "replay.stored_state is what a core remembered: choose core=lstm or gru, or set replay.stored_state=true": (
            not replay.stored_state and not state_size
        ),
        "replay=dataset holds nothing of what a core remembered: choose core=none": (
            "path" in replay and state_size > 0
        ),
        "replay.burn_in warms a core up: choose core=lstm or gru, or set replay.burn_in=0": (
            replay.burn_in > 0 and not state_size
        ),
        "replay.stride spaces the starts of sequences: set replay.length above 1 or replay.stride=1": (
            replay.stride > 1 and not (sequence or state_size)
        ),
        f"a batch has {replay.length * replay.batch_size} rows (replay.length × replay.batch_size): set "
        "passes.minibatches to that or less": cfg.passes.minibatches > replay.length * replay.batch_size,
        "passes take a batch apart, a core needs it in order: set passes.epochs=1 passes.minibatches=1 or core=none": (
            passes > 1 and state_size > 0
        ),
        "passes take a batch apart, so no td_error is left for its priorities: choose replay=uniform or rollout": (
            passes > 1 and sampler.reports
        ),
    }
    for sentence, wrong in refused.items():
        if wrong:
            raise UsageError(f"{sentence}.")
