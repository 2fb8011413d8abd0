"""What goes together: parts that cannot are refused, and what can but seldom is meant is said."""

import re
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dqn.envs.passed import is_standing
from dqn.errors import UsageError
from dqn.protocols import Sampler
from dqn.resources import cores


def warnings(cfg: DictConfig, lr_schedule: Any, envs: Any) -> list[str]:
    """What can be meant, and seldom is: each a sentence that says what to change."""
    nearly = max(0, cfg.steps * 9 // 10)
    doubtful = {
        f"{envs.id} has no time limit: an episode may never end, and an evaluation cuts it after ten times the longest "
        "episode of training (tracking.evaluate_cap at most); env.max_episode_steps=N sets a limit.": (
            envs.limit is None
        ),
        f"Nothing is learnt before learning_starts={cfg.learning_starts:,}: lower it, or raise steps={cfg.steps:,}.": (
            cfg.learning_starts >= cfg.steps
        ),
        f"The lr is 0 for the last tenth of {cfg.steps:,} steps or more: raise lr_schedule.steps, or set "
        "lr_schedule.end above 0.": cfg.steps > 10 and lr_schedule is not None and lr_schedule(nearly) == 0,
        "Wrappers that normalise begin their statistics anew in every evaluation and resume, and NormalizeReward "
        "changes what is reported: take them from env.wrappers (normalizer=running is a part of the agent), or say so "
        "beside the results.": any(
            "Normalize" in str(node.get("_target_")) for node in (cfg.env.get("wrappers") or {}).values() if node
        ),
        f"env=gym shows {cfg.env.get('id')} as it is, a frame at a time and in colour: env=atari brings the "
        "preprocessing of the literature, and its numbers.": _raw_atari(cfg.env),
        f"execution.actor=process wants a core for itself beside execution.threads={cfg.execution.threads}, and there "
        f"are {cores()} in all: set execution.actor=local, or fewer threads.": (
            cfg.execution.actor == "process" and cores() <= cfg.execution.threads
        ),
        "A single environment stands on the first rung of exploration.ladder for ever: set env.num_envs above 1, or "
        "choose exploration=epsilon_greedy.": cfg.exploration.get("ladder", 0) > 0 and cfg.env.num_envs == 1,
    }
    return [sentence for sentence, doubted in doubtful.items() if doubted]


def _raw_atari(env: DictConfig) -> bool:
    plain = env.get("vectorization") != "vector_entry_point" and not env.get("wrappers")
    return plain and str(env.get("id")).startswith("ALE/")


def unread(cfg: DictConfig, given: Sequence[str]) -> list[str]:
    """A sentence for each tuned number among the overrides `given` that no part of this run reads."""
    rest = OmegaConf.to_yaml(OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "tuned"]))
    names = [override.partition("=")[0].lstrip("+~") for override in given]
    return [
        f"{name} has no effect: no part of this run reads it."
        for name in names
        if name.startswith("tuned.") and not re.search(rf"\$\{{{re.escape(name)}[.}}]", rest)
    ]


def check_compatible(cfg: DictConfig, head: Any, sampler: Sampler, state_size: int) -> None:
    """Refuse parts that do not go together, each pair in one sentence that says what to change. Errors: UsageError."""
    refused = (
        _acting(cfg)
        | _language(cfg, hasattr(head, "embedding"))
        | _returns(cfg, bool(getattr(head, "scalar", False)))
        | (_newest(cfg) if sampler.newest else {})
        | _memory(cfg, state_size)
        | _passes(cfg, state_size, sampler.reports)
    )
    for sentence, wrong in refused.items():
        if wrong:
            raise UsageError(f"{sentence}.")


def _acting(cfg: DictConfig) -> dict[str, bool]:
    """What does not go with where the environments are played, or with who is imitated."""
    elsewhere = cfg.execution.actor == "process"
    return {
        "teacher=RUN is imitated by a term: choose algorithm=distill, or terms=distillation beside another recipe": (
            cfg.get("teacher") is not None and not any("teacher" in node for node in cfg.terms.values())
        ),
        "execution.actor=process acts in Gymnasium's environments, and env=lm shares its model with the network: set "
        "execution.actor=local": elsewhere and "model" in cfg.env,
        "tracking.info names values of the info of Gymnasium's environments, and env=lm reports what it knows: set "
        "tracking.info=[]": "model" in cfg.env and bool(cfg.tracking.get("info")),
        "execution.actor=process acts in Gymnasium's environments, not in tensor worlds or recorded data: set "
        "execution.actor=local": elsewhere and ("path" in cfg.replay or "world" in cfg.env),
        f"execution.actor=process makes environments by their name, and {cfg.env.get('id')} was passed as an object: "
        "set execution.actor=local, or pass a class or function of a module that can be imported": (
            elsewhere and is_standing(str(cfg.env.get("id")))
        ),
        "execution.actor=process steps its environments itself: set env.vectorization=sync, or execution.actor=local": (
            elsewhere and cfg.env.get("vectorization") == "async"
        ),
        "tracking.info names values of the info of Gymnasium's environments, and tensor worlds have none: set "
        "tracking.info=[]": "world" in cfg.env and bool(cfg.tracking.get("info")),
        "tracking.evaluate_in=training plays where this process acts: set execution.actor=local": (
            elsewhere and cfg.tracking.evaluate_in == "training"
        ),
    }


def _language(cfg: DictConfig, multiplies: bool) -> dict[str, bool]:
    """What does not go with a language model; `multiplies`: the head multiplies the features by an embedding."""
    parts = {"torso": ".Candidates", "output": ".Tied", "exploration": ".Guided"}
    language = {part: cfg[part]._target_.endswith(name) for part, name in parts.items()}
    return {
        "torso=candidates, output=tied and exploration=guided belong to env=lm, and env=lm to them: choose env=lm with "
        "a recipe such as algorithm=lm_mc": len({"model" in cfg.env, *language.values()}) > 1,
        "backup=kl_soft stays near a policy that is given, and only env=lm gives one: choose backup=soft": (
            cfg.backup._target_.endswith(".kl_soft") and "model" not in cfg.env
        ),
        "output=tied reads the hidden vector as it is, and this head multiplies it first: choose head=expected, "
        "categorical, hl_gauss or quantile": language["output"] and multiplies,
    }


def _returns(cfg: DictConfig, scalar: bool) -> dict[str, bool]:
    """What does not go with how rewards are summed up; `scalar`: the head has a single number per target."""
    replay, envs = cfg.replay, cfg.env.num_envs
    window, sequence = replay.burn_in + replay.length - 1 + cfg.n_step, replay.length > 1
    return {
        f"n_step={cfg.n_step} with replay.length={replay.length} and replay.burn_in={replay.burn_in} needs {window:,} "
        "rows of each environment, more than the replay memory keeps: lower them, or raise replay.capacity": (
            replay.get("capacity") is not None and "path" not in replay and window * envs > replay.capacity
        ),
        "lambda_ mixes returns along a sequence: set replay.length above 1 (replay=rollout), or lambda_=null": (
            cfg.lambda_ is not None and not sequence
        ),
        "lambda_ mixes returns of every length by itself: set n_step=1": cfg.lambda_ is not None and cfg.n_step > 1,
        "lambda_ needs a head with a single number per target: choose head=expected or hl_gauss, or lambda_=null": (
            cfg.lambda_ is not None and not scalar
        ),
    }


def _newest(cfg: DictConfig) -> dict[str, bool]:
    """What does not go with learning once from what was just collected."""
    replay, envs = cfg.replay, cfg.env.num_envs
    phase, sequence = envs * replay.length, replay.length > 1
    return {
        f"replay=newest and rollout use every transition once: set train_every={phase} (env.num_envs × replay.length; "
        "fewer whole ticks leave room for the rows that ends take), updates=1 and n_step=1": (
            cfg.train_every > phase or cfg.train_every % envs > 0 or cfg.updates * cfg.n_step > 1
        ),
        "replay=newest sees only the newest row of each environment, where others reset meanwhile: set "
        "env.autoreset=same_step or env.num_envs=1": (
            not sequence and envs > 1 and cfg.env.get("autoreset") == "next_step"
        ),
        f"replay=newest and rollout learn from all environments at once: set replay.batch_size={envs}": (
            replay.batch_size != envs
        ),
    }


def _memory(cfg: DictConfig, state_size: int) -> dict[str, bool]:
    """What does not go with the kind of memory, and with a network that has a core or none."""
    replay, sequence = cfg.replay, cfg.replay.length > 1
    return {
        "replay.stored_state is what a core remembered: choose core=lstm or gru, or set replay.stored_state=true": (
            not replay.stored_state and not state_size
        ),
        "replay=dataset holds nothing of what a core remembered: choose core=none": (
            "path" in replay and state_size > 0
        ),
        "normalizer=running counts what is collected, and replay=dataset collects nothing: set normalizer=none": (
            "path" in replay and not cfg.normalizer._target_.endswith(".nothing")
        ),
        "replay.burn_in warms a core up: choose core=lstm or gru, or set replay.burn_in=0": (
            replay.burn_in > 0 and not state_size
        ),
        "replay.stride spaces the starts of sequences: set replay.length above 1 or replay.stride=1": (
            replay.stride > 1 and not (sequence or state_size)
        ),
    }


def _passes(cfg: DictConfig, state_size: int, reports: bool) -> dict[str, bool]:
    """What does not go with learning several times from one batch."""
    replay, passes = cfg.replay, cfg.passes.epochs * cfg.passes.minibatches
    return {
        f"a batch has {replay.length * replay.batch_size} rows (replay.length × replay.batch_size): set "
        "passes.minibatches to that or less": cfg.passes.minibatches > replay.length * replay.batch_size,
        "passes take a batch apart, a core needs it in order: set passes.epochs=1 passes.minibatches=1 or core=none": (
            passes > 1 and state_size > 0
        ),
        "passes take a batch apart, so no td_error is left for its priorities: choose replay=uniform or rollout": (
            passes > 1 and reports
        ),
    }
