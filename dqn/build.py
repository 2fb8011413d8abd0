"""The reader of the configuration (with options and card): parts → one wired run."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from dqn.acting.actor import Actor
from dqn.card import card, plan
from dqn.envs.gym import GymEnvs, make
from dqn.execution.device import choose_device
from dqn.learning.learner import Learner
from dqn.learning.objective import Objective
from dqn.networks.qnetwork import QNetwork
from dqn.ops.clock import Times
from dqn.options import check
from dqn.replay.memory import Memory
from dqn.replay.ring import Ring
from dqn.replay.samplers import Newest
from dqn.replay.stage import Stage
from dqn.tracking.evaluation import known_values, play
from dqn.tracking.logger import Logger
from dqn.tracking.seeding import generator, stream
from dqn.trainer import Trainer
from dqn.types import Spec, UsageError

STAGE_TICKS = 64  # rows gathered, at most, before they are written to the ring


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
    if isinstance(sampler, Newest) and (cfg.train_every, cfg.updates, cfg.n_step) != (envs.num_envs, 1, 1):
        raise UsageError(
            f"replay=newest uses every transition once: set train_every={envs.num_envs} (one per environment), "
            "updates=1 and n_step=1."
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
    stage = Stage(spec, envs.num_envs, ticks=max(1, min(STAGE_TICKS, ring.rows // 4)))  # a small ring, small blocks
    trainer = Trainer(
        envs=envs, actor=actor, memory=memory, stage=stage, learner=learner,
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
                lambda obs: self.actor.act_with(obs, epsilon, coins), envs, episodes, stream(seed, "evaluation")
            )
        finally:
            envs.close()
        if self.optimal is not None:
            result["known_q"] = known_values(self.actor.network, self.optimal, self.device, cfg.gamma)
        return {**result, "epsilon": epsilon}
