"""The only reader of the configuration: parts → one wired run."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from dqn import __version__
from dqn.acting.actor import Actor
from dqn.cli import nearest, option_names
from dqn.envs.gym import GymEnvs, make
from dqn.execution.device import choose_device
from dqn.learning.learner import Learner
from dqn.learning.objective import Objective
from dqn.networks.qnetwork import QNetwork
from dqn.replay.memory import Memory
from dqn.replay.ring import Ring
from dqn.replay.samplers import Newest
from dqn.replay.stage import Stage
from dqn.tracking.evaluation import known_values, play
from dqn.tracking.logger import Logger
from dqn.tracking.seeding import generator, stream
from dqn.trainer import Times, Trainer
from dqn.types import Spec, UsageError

log = logging.getLogger("dqn")
STAGE_TICKS = 64  # rows gathered before they are written to the ring

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
        "train_every", "updates", "max_grad_norm", "device", "resume", "run",
    },
    "replay": {"capacity", "batch_size", "sampler"},
    "target": {"period", "polyak"},
    "execution": {"engine", "threads"},
    "run": {"dir"},
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


@dataclass
class Run:
    """A wired run and what its verbs need of it."""

    trainer: Trainer
    device: torch.device
    card: str

    def close(self) -> None:
        self.trainer.logger.close()
        self.trainer.envs.close()


def environments(cfg: DictConfig, **changes: Any) -> GymEnvs:
    """The configured environments, with some arguments changed."""
    if OmegaConf.is_missing(cfg.env, "id"):
        raise UsageError("env.id has no value: name a Gymnasium environment with env.id=NAME.")
    return make(**{**OmegaConf.to_container(cfg.env, resolve=True), **changes})  # type: ignore[arg-type]


def evaluation_environments(cfg: DictConfig, episodes: int) -> GymEnvs:
    """Environments of their own for an evaluation, in this process, each episode bounded by the cap."""
    way = "vector_entry_point" if cfg.env.vectorization == "vector_entry_point" else "sync"
    return environments(cfg, num_envs=min(episodes, 16), vectorization=way, step_cap=cfg.tracking.evaluate_cap)


def function(node: DictConfig) -> Any:
    """A part that is a function with its numbers filled in; freed from Hydra's checks, which every call
    would repeat."""
    made = instantiate(node)
    return partial(made.func, *made.args, **made.keywords) if isinstance(made, partial) else made


def network(cfg: DictConfig, spec: Spec) -> QNetwork:
    """A Q-network on the CPU with parameters drawn from the run's own stream."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(cfg.seed, "parameters"))
        torso = instantiate(cfg.torso)(spec)
        return QNetwork(torso, instantiate(cfg.head)(torso.features, spec.num_actions))


def plan(cfg: DictConfig, spec: Spec, parameters: int, device: torch.device) -> str:
    """What will lie in memory. Errors: UsageError, with a capacity that fits, where it would not."""
    replay = Ring.bytes_for(spec, cfg.replay.capacity, cfg.env.num_envs, cfg.n_step)
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    else:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") + _page_cache()
    if replay > 0.9 * free:
        fits = int(cfg.replay.capacity * 0.8 * free / replay)
        raise UsageError(
            f"A replay memory of {cfg.replay.capacity:,} transitions needs {replay / 2**30:.1f} GiB, "
            f"{free / 2**30:.1f} GiB are free on {device}: set replay.capacity={fits} or less."
        )
    return (
        f"replay of {cfg.replay.capacity:,} transitions {replay / 2**20:.1f} MiB on {device}, {parameters:,} parameters"
    )


def _page_cache() -> int:
    """Memory that the system gives back on demand (Linux), in bytes."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return int(lines["Cached"].split()[0]) * 1024
    except (OSError, KeyError):
        return 0


def part_line(node: Any) -> str:
    """MLP(hidden=[120, 84], …) for a part's configuration."""
    if not OmegaConf.is_config(node):
        return str(node)
    plain = OmegaConf.to_container(node, resolve=True)

    def line(value: Any) -> str:
        if not isinstance(value, dict):
            return str(value)
        inside = ", ".join(f"{k}={line(v)}" for k, v in value.items() if not k.startswith("_") and v is not None)
        return f"{value['_target_'].rpartition('.')[2]}({inside})" if "_target_" in value else inside

    return line(plain)


def card(cfg: DictConfig, envs: GymEnvs, memory_plan: str, why: str, directory: Path) -> str:
    """The recipe card: what this run is made of."""
    spec = envs.spec
    seen = f"{spec.states} states" if spec.states else f"{spec.obs_dtype} {spec.obs_shape}"
    lines = {
        "env": f"{envs.id} × {envs.num_envs} ({envs.mode.value}), sees {seen}, {spec.num_actions} actions",
        **{part: part_line(cfg[part]) for part in ("torso", "head", "backup", "transform", "replay")},
        "returns": f"n_step={cfg.n_step}, gamma={cfg.gamma}",
        **{part: part_line(cfg[part]) for part in ("exploration", "target", "optimizer", "lr_schedule")},
        "time": f"{cfg.steps:,} env_steps from seed {cfg.seed}; behind {cfg.learning_starts:,}, "
        f"{cfg.updates} update(s) every {cfg.train_every}",
        "device": f"{why}; engine {part_line(cfg.execution.engine)}, {cfg.execution.threads} thread(s)",
        "memory": memory_plan,
        "run": str(directory.resolve()),
    }
    return f"dqn {__version__}\n" + "\n".join(f"  {name:<12} {text}" for name, text in lines.items())


def run(cfg: DictConfig, directory: Path, purge_step: int | None = None) -> Run:
    """Wire one run in `directory`: nothing has been stepped or learnt yet.

    Errors: UsageError, also for what a part refuses when it is made.
    """
    check(cfg)
    try:
        return _wire(cfg, directory, purge_step)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{' '.join(str(error).split()).rstrip('.')}.") from error


def _wire(cfg: DictConfig, directory: Path, purge_step: int | None) -> Run:
    torch.set_num_threads(cfg.execution.threads)
    device, why = choose_device(cfg.device)
    envs = environments(cfg)
    spec, seed = envs.spec, cfg.seed
    online = network(cfg, spec).to(device)
    memory_plan = plan(cfg, spec, sum(p.numel() for p in online.parameters()), device)
    sampler = instantiate(cfg.replay.sampler)
    if isinstance(sampler, Newest) and (cfg.train_every, cfg.updates) != (envs.num_envs, 1):
        raise UsageError(
            f"replay=newest uses every transition once: set train_every={envs.num_envs} (one per environment) "
            "and updates=1."
        )
    ring = Ring(spec, cfg.replay.capacity, envs.num_envs, window=cfg.n_step, device=device)
    memory = Memory(ring, sampler, cfg.gamma, cfg.n_step, generator(seed, "replay", device))
    engine = instantiate(cfg.execution.engine)
    objective = Objective(function(cfg.backup), instantiate(cfg.transform))
    learner = Learner(
        online, objective, instantiate(cfg.optimizer), cfg.target.polyak, cfg.max_grad_norm,
        instantiate(cfg.lr_schedule),
    )  # fmt: skip
    actor = Actor(online, instantiate(cfg.exploration), device, generator(seed, "exploration", device))

    def update() -> tuple[torch.Tensor, Any]:
        batch = memory.sample()
        return learner.update(batch), batch

    times = Times(
        **{f.name: cfg[f.name] for f in fields(Times) if f.name in cfg},
        **{f.name: cfg.tracking[f.name] for f in fields(Times) if f.name in cfg.tracking},
        target_period=cfg.target.period,
    )
    trainer = Trainer(
        envs=envs, actor=actor, memory=memory, stage=Stage(spec, envs.num_envs, STAGE_TICKS), learner=learner,
        update=engine.capture(update), evaluate=Evaluator(cfg, actor, device, envs.optimal_q(cfg.gamma)),
        times=times, seed=seed, gamma=cfg.gamma, directory=directory, logger=Logger(directory, purge_step),
    )  # fmt: skip
    return Run(trainer, device, card(cfg, envs, memory_plan, why, directory))


class Evaluator:
    """Evaluates an actor's network with the run's settings; the same start states every time."""

    def __init__(self, cfg: DictConfig, actor: Actor, device: torch.device, optimal: Any = None):
        self.cfg, self.actor, self.device, self.optimal = cfg, actor, device, optimal

    def __call__(
        self, episodes: int | None = None, epsilon: float | None = None, seed: int | None = None
    ) -> dict[str, Any]:
        cfg = self.cfg
        episodes = cast(int, cfg.tracking.evaluate_episodes if episodes is None else episodes)
        epsilon = cast(float, cfg.tracking.evaluate_epsilon if epsilon is None else epsilon)
        seed = cast(int, cfg.seed if seed is None else seed)
        coins = generator(seed, "evaluation", self.device)
        envs = evaluation_environments(cfg, episodes)
        try:
            result = play(
                lambda obs: self.actor.act_with(obs, epsilon, coins),
                envs,
                episodes,
                stream(seed, "evaluation"),
            )
        finally:
            envs.close()
        if self.optimal is not None:
            result["known_q"] = known_values(self.actor.network, self.optimal, self.device, cfg.gamma)
        return {**result, "epsilon": epsilon}
