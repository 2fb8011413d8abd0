"""The one description of every option that is no argument of a part: its kind, its bounds, and whether a resume may
change it. What is given to a part the part checks itself."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dqn.config.cli import nearest, option_names
from dqn.errors import UsageError

MOST = 10**15  # any whole number: more would not be exact in a float, nor fit an int64 when it is multiplied
POSITIVE = 5e-324  # any number above 0


@dataclass(frozen=True)
class Option:
    """What one option may be. `wanted` says it in words, `fits` whether a value is it."""

    wanted: str
    fits: Callable[[Any], bool]
    null: bool = False  # may be null
    fixed: bool = False  # a checkpoint is made with it, so that a resume cannot change it
    there: bool = True  # must be there


def whole(least: int = 0, most: int = MOST, **how: bool) -> Option:
    """A whole number; 1e6 is one, and becomes an int."""
    words = f"a whole number ≥ {least}" + ("" if most == MOST else f" and ≤ {most:,}")
    return Option(words, lambda x: isinstance(x, int) and not isinstance(x, bool) and least <= x <= most, **how)


def real(low: float = -inf, high: float = inf, endless: bool = False, **how: bool) -> Option:
    """A number; infinite only where that has a meaning (`endless`)."""
    if low == POSITIVE:
        words = "a number above 0"
    elif high < inf:
        words = f"a number between {low:g} and {high:g}"
    else:
        words = f"a number ≥ {low:g}" if low > -inf else "a number"
    return Option(words, lambda x: _is_number(x) and low <= x <= high and (endless or isfinite(x)), **how)


def _is_number(x: Any) -> bool:
    return isinstance(x, (int, float)) and not isinstance(x, bool)


def one_of(*choices: Any, **how: bool) -> Option:
    """One of these words or values."""
    words = " or ".join("null" if c is None else str(c).lower() if isinstance(c, bool) else c for c in choices)
    return Option(words, lambda x: any(x is c or (x == c and isinstance(x, str)) for c in choices), **how)


def switch(**how: bool) -> Option:
    """True or false."""
    return one_of(True, False, **how)


def text(**how: bool) -> Option:
    """A word or a sentence."""
    return Option("text", lambda x: isinstance(x, str) and x != "", **how)


def listed(kind: type, example: str, **how: bool) -> Option:
    """A list of values of one kind."""
    return Option(
        f"a list as {example}",
        lambda x: isinstance(x, list) and all(isinstance(one, kind) and not isinstance(one, bool) for one in x),
        **how,
    )


def section(**how: bool) -> Option:
    """Options below it, or a part."""
    return Option("a section of options", lambda x: isinstance(x, dict), **how)


def part(**how: bool) -> Option:
    """A part: a section that names a class or a function."""
    return Option("a part, which names a class or function by _target_", _is_part, **how)


def _is_part(x: Any) -> bool:
    return isinstance(x, dict) and isinstance(x.get("_target_"), str) and x["_target_"] not in ("", "???")


GYM_ENV = {
    "env.id": text(fixed=True),
    "env.num_envs": whole(1, 10_000, fixed=True),
    "env.vectorization": one_of("sync", "async", "vector_entry_point"),
    "env.autoreset": one_of("same_step", "next_step", "disabled", fixed=True),
    "env.imports": listed(str, "[package]"),
    "env.kwargs": section(null=True, fixed=True),
    "env.wrappers": Option(
        "wrappers by name: put one around with +env.wrappers.NAME._target_=CLASS",
        lambda x: isinstance(x, dict) and all(one is None or _is_part(one) for one in x.values()),
        null=True,
        fixed=True,
    ),
    "env.max_episode_steps": whole(1, null=True, fixed=True),
    "env.action_mask": one_of("auto", "required", "none"),
    "env.max_actions": whole(1, 10_000_000, there=False),
}
TENSOR_ENV = {
    "env.world": section(fixed=True),
    "env.world._target_": text(),
    "env.num_envs": whole(1, 10_000_000, fixed=True),
    "env.max_episode_steps": whole(1, null=True, fixed=True),
    "env.wrappers": section(null=True, there=False),  # none may stand in it: parts.environments says so
}
LANGUAGE_ENV = {
    "env.model": text(),
    "env.dtype": one_of("float32", "bfloat16", fixed=True),
    "env.task": text(null=True, fixed=True),
    "env.prompts": text(null=True),
    "env.test_prompts": text(null=True),
    "env.score": text(null=True, fixed=True),
    "env.second_score": text(null=True, fixed=True),
    "env.num_envs": whole(1, 100_000, fixed=True),
    "env.max_tokens": whole(1, 1_000_000, fixed=True),
    "env.limit": one_of("truncate", "terminate", fixed=True),
    "env.candidates": whole(2, 1_000_000, fixed=True),
    "env.top_p": real(POSITIVE, 1, fixed=True),
    "env.shaping": switch(fixed=True),
}
OPTIONS = {
    "seed": whole(fixed=True),
    "steps": whole(1),
    "gamma": real(0, 1),
    "n_step": whole(1, fixed=True),
    "lambda_": real(0, 1, null=True),
    "td_weight": real(0, there=False),
    "learning_starts": whole(),
    "task_name": text(null=True),
    "tags": listed(str, "[ablation,first]"),
    "train_every": whole(1),
    "updates": whole(1, 10_000_000),
    "passes": section(fixed=True),
    "passes.epochs": whole(1, 1_000_000),
    "passes.minibatches": whole(1, 1_000_000),
    "reward_clip": real(POSITIVE, endless=True, null=True, fixed=True),
    "max_grad_norm": real(0, endless=True, null=True),
    "device": text(),
    "resume": text(null=True),
    "init_from": text(null=True, fixed=True),
    "teacher": text(null=True, fixed=True, there=False),
    "run": section(),
    "run.dir": text(),
    "chosen": section(),
    "chosen.algorithm": text(null=True),
    "chosen.env": text(null=True),
    "normalizer": part(fixed=True),
    "torso": part(fixed=True),
    "core": part(fixed=True),
    "layer": part(fixed=True),
    "output": part(fixed=True),
    "dense_in": one_of("torso", "output", fixed=True),
    "output.hidden": listed(int, "[256,256]", there=False),
    "head": part(fixed=True),
    "backup": part(),
    "transform": part(fixed=True),
    "terms": Option(
        "parts by name, as terms=conservative",
        lambda x: isinstance(x, dict) and all(map(_is_part, x.values())),
    ),
    "exploration": part(),
    "optimizer": part(),
    "optimizer.lr": real(0, there=False),
    "lr_schedule": part(),
    "target": section(),
    "target.period": whole(),
    "target.polyak": real(0, 1, null=True),
    "env": section(),
    "execution": section(),
    "execution.engine": part(),
    "execution.actor": one_of("local", "process", fixed=True),
    "execution.threads": whole(1, 1024),  # torch dies of more without a word
    "execution.precision": one_of("float32", "tf32", "bf16"),
    "execution.channels_last": switch(),
    "replay": section(),
    "replay.capacity": whole(1, fixed=True),
    "replay.batch_size": whole(1, 10**9),
    "replay.length": whole(1, 1_000_000, fixed=True),
    "replay.burn_in": whole(0, 1_000_000, fixed=True),
    "replay.stride": whole(1, 1_000_000, fixed=True),
    "replay.stored_state": switch(),
    "replay.sampler": part(),
    "replay.path": text(there=False, fixed=True),
    "replay.best": real(POSITIVE, 1, there=False, fixed=True),
    "replay.device": one_of("auto", "cpu", "cuda", "memmap", there=False),
    "replay.frame_stack": whole(1, 1000, there=False, fixed=True),
    "replay.frame_padding": one_of("reset", "zero", there=False, fixed=True),
    "tracking": section(),
    "tracking.log_every": whole(1),
    "tracking.checkpoint_every": whole(),
    "tracking.evaluate_every": whole(),
    "tracking.evaluate_episodes": whole(1, 10_000_000),
    "tracking.final_episodes": whole(0, 10_000_000),
    "tracking.evaluate_in": one_of("own", "training"),
    "tracking.evaluate_envs": whole(1, 10_000),
    "tracking.evaluate_epsilon": real(0, 1),
    "tracking.evaluate_cap": whole(1),
    "tracking.video_every": whole(there=False),
    "tracking.info": listed(str, "[is_success,cost]", there=False),
    "tuned": section(),
    "tuned.for_env": text(),
    "tuned.for_pair": text(),
    "tuned.hidden": listed(int, "[256,256]"),
    "tuned.norm": one_of("layer", None),
    "tuned.dense": part(),
    "tuned.mlp_layer": part(),
    "tuned.cnn_hidden": whole(1, 1_000_000, null=True, there=False),
    "tuned.core_hidden": whole(1, 1_000_000),
    "tuned.sigma0": real(0, there=False),
    "tuned.loss": one_of("huber", "squared"),
    "tuned.lr": real(0),
    "tuned.eps": real(0),
    "tuned.target_period": whole(),
    "tuned.capacity": whole(1),
    "tuned.batch_size": whole(1, 10**9),
    "tuned.priority_exponent": real(0),
    "tuned.importance_start": real(0),
    "tuned.importance_end": real(0),
    "tuned.importance_steps": whole(1, there=False),
    "tuned.v_min": real(),
    "tuned.v_max": real(),
    "tuned.quantiles": whole(1, 1_000_000),
    "tuned.samples": whole(1, 1_000_000),
    "tuned.epsilon_end": real(0, 1),
    "tuned.epsilon_steps": whole(1),
    "tuned.epsilon_until": whole(1, null=True, there=False),
    "tuned.temperature": real(POSITIVE, there=False),
}
ARGUMENTS = {  # of parts that are functions, which would check them only where they are called
    "backup.temperature": real(POSITIVE),
    "backup.epsilon": real(0, 1),
    "backup.scale": real(0),
    "backup.floor": real(high=0.0),
    "lr_schedule.start": real(0),
    "lr_schedule.end": real(0),
}
CLOSED = ("passes", "target", "execution", "run", "chosen", "tuned", "tracking", "replay")  # sections without others
FIXED = (*(name for name, option in {**OPTIONS, **GYM_ENV, **TENSOR_ENV, **LANGUAGE_ENV}.items() if option.fixed),)


def described(cfg: DictConfig) -> dict[str, Option]:
    """Every option that the configuration must have, or may have, with what it may be."""
    given = cfg.get("env") or {}
    env = TENSOR_ENV if "world" in given else LANGUAGE_ENV if "model" in given else GYM_ENV
    there = {name: option for name, option in ARGUMENTS.items() if OmegaConf.select(cfg, name) is not None}
    return {**OPTIONS, **env, **there}


def check(cfg: DictConfig) -> None:
    """Refuse what cannot be meant, each in one sentence; whole numbers written as 1e6 become ints.

    Errors: UsageError.
    """
    known = described(cfg)
    if OmegaConf.is_missing(cfg.get("replay") or {}, "path"):
        raise UsageError("replay.path has no value: name a run's directory or a Minari dataset with replay.path=…")
    for name, option in known.items():
        _check_one(cfg, name, option)
    _check_names(cfg, known)
    _check_finite(cfg)


def _check_one(cfg: DictConfig, name: str, option: Option) -> None:
    section_name, _, key = name.rpartition(".")
    owner = OmegaConf.select(cfg, section_name) if section_name else cfg
    names = {*owner.keys()}  # `in` passes over values that are missing
    if key in names and OmegaConf.is_missing(owner, key):
        raise UsageError(f"{name} has no value: set it with {name}=…")
    if key not in names:
        if option.there:
            raise UsageError(f"{name} is missing, as in a run of an earlier version: add it to the run's config.yaml.")
        return
    value = OmegaConf.select(cfg, name)
    if isinstance(value, float) and value.is_integer() and not option.fits(value) and option.fits(int(value)):
        OmegaConf.update(cfg, name, value := int(value))
    plain = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    if name == "replay.capacity" and "path" in cfg.replay and plain is None:
        return  # as much as was recorded
    if not (option.fits(plain) or (plain is None and option.null)):
        raise UsageError(f"{name} must be {option.wanted}, got {_shown(plain)}.")


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    shown = repr(value)
    return shown if len(shown) < 80 else f"{shown[:77]}…"


def _check_names(cfg: DictConfig, known: dict[str, Option]) -> None:
    """Refuse what has a name that no section has."""
    for name in ("", *CLOSED):
        node = OmegaConf.select(cfg, name) if name else cfg
        prefix = f"{name}." if name else ""
        for key in node:
            if f"{prefix}{key}" not in known:
                others = [other for other in option_names(cfg) if other != f"{prefix}{key}"]
                raise UsageError(f"{prefix}{key} is not an option{nearest(f'{prefix}{key}', others)}: remove it.")
    for key in cfg.env:
        if f"env.{key}" not in known:
            others = [other for other in option_names(cfg) if other.startswith("env.") and other != f"env.{key}"]
            raise UsageError(
                f"env.{key} is not an option{nearest(f'env.{key}', others)}: what the environment itself takes goes "
                f"with +env.kwargs.{key}=…"
            )


def _check_finite(cfg: DictConfig) -> None:
    """No option may be nan, and none but an environment's own inf, where `_check_one` has not allowed it."""
    for name in option_names(cfg):
        value = OmegaConf.select(cfg, name, throw_on_missing=False, throw_on_resolution_failure=False)
        if isinstance(value, float) and not isfinite(value) and not name.startswith("env.") and name not in OPTIONS:
            raise UsageError(f"{name} must be a number that is finite, got {value}.")
