"""Wires one run: every part of the configuration in its place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from dqn import parts
from dqn.acting.actor import Actor
from dqn.card import card, plan
from dqn.collector import Collector, Offline
from dqn.envs.tensor.envs import TensorEnvs
from dqn.execution.device import choose_device
from dqn.options import check, fit
from dqn.replay.memory import Memory
from dqn.replay.stage import Stage
from dqn.tensor_collector import TensorCollector
from dqn.tracking.logger import Logger
from dqn.tracking.seeding import generator
from dqn.trainer import Trainer
from dqn.types import UsageError

STAGE_TICKS = 64  # rows gathered, at most, before they are written to the ring


@dataclass
class Run:
    """A wired run and what its verbs need of it."""

    trainer: Trainer
    device: torch.device
    engine: str
    card: str

    def close(self) -> None:
        self.trainer.logger.close()
        self.trainer.collector.close()


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
    torch.set_flush_denormal(True)  # Adam's averages of what gets no gradient become such, slow to compute with
    device, why = choose_device(cfg.device)
    envs = parts.environments(cfg, device)
    spec, seed = envs.spec, cfg.seed
    online = parts.network(cfg, spec).to(device)
    sampler = instantiate(cfg.replay.sampler)
    fit(cfg, online.head, sampler, online.state_size)
    memory_plan = plan(cfg, spec, sum(p.numel() for p in online.parameters()), online.state_size, device, directory)
    memory = parts.memory(cfg, spec, sampler, envs.num_envs, online.state_size, device, directory)
    times, learner = parts.times(cfg), parts.learner(cfg, online, device)
    engine = instantiate(cfg.execution.engine)(device, times.updates_due(0, times.steps) * learner.steps)
    actor = Actor(
        online, instantiate(cfg.exploration), device, generator(seed, "exploration", device), envs.num_envs
    )  # fmt: skip

    def update() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        batch = memory.sample()
        stats, td_error = learner.update(batch)
        memory.report(batch, td_error)
        return stats, {k: v for k, v in vars(batch).items() if torch.is_tensor(v)}

    if learner.passes is None:
        update = engine.capture(update, learner.optimizer)
    else:  # one gradient step is the program: all of them in one would be a very long one
        learner.descend_rows = engine.capture(learner.descend_rows, learner.optimizer)
    collector = _collector(cfg, envs, actor, memory, engine)
    trainer = Trainer(
        collector=collector, actor=actor, memory=memory, learner=learner, update=update,
        evaluate=parts.Evaluator(cfg, online, device, envs),
        times=times, seed=seed, gamma=cfg.gamma, directory=directory, logger=Logger(directory, purge_step),
    )  # fmt: skip
    return Run(trainer, device, engine.why, card(cfg, envs, memory_plan, why, engine.why, directory))


def _collector(cfg: DictConfig, envs: Any, actor: Actor, memory: Memory, engine: Any) -> Any:
    """What acts in the environments, where there is something to act in."""
    if "path" in cfg.replay:
        return Offline(envs)
    ticks = max(1, min(STAGE_TICKS, memory.ring.rows // 4))  # a small ring, small blocks
    if isinstance(envs, TensorEnvs):
        return TensorCollector(envs, actor, ticks, engine.capture)
    actor.policy = engine.capture(actor.policy, small=True)
    return Collector(envs, actor, Stage(envs.spec, envs.num_envs, ticks, actor.network.state_size))
