"""Wires one run: every part of the configuration in its place."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from dqn import parts
from dqn.acting.actor import Actor
from dqn.card import card, plan
from dqn.collector import Collector
from dqn.envs.tensor.envs import TensorEnvs
from dqn.execution.device import choose_device, choose_place, flushed
from dqn.learning.learner import Learner
from dqn.offline import Offline
from dqn.options import check, doubts, fit
from dqn.replay.memory import Memory
from dqn.replay.stage import Stage
from dqn.tensor_collector import TensorCollector
from dqn.tracking.logger import Logger
from dqn.tracking.seeding import generator, stream
from dqn.trainer import Trainer
from dqn.types import Batch, UsageError

STAGE_TICKS = 64  # rows gathered, at most, before they are written to the ring


@dataclass
class Run:
    """A wired run and what its verbs need of it."""

    trainer: Trainer
    device: torch.device
    engine: str
    card: str
    doubts: list[str]

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
    torch.manual_seed(stream(cfg.seed, "torch"))  # for parts that draw from torch's own stream, as Dropout does
    device, why = choose_device(cfg.device)
    envs = parts.environments(cfg, device)
    spec, seed = envs.spec, cfg.seed
    online = parts.network(cfg, spec).to(device)
    sampler = instantiate(cfg.replay.sampler)
    fit(cfg, online.head, sampler, online.state_size)
    place = choose_place(cfg.replay.get("device", "auto"), device)
    memory_plan = plan(cfg, spec, sum(p.numel() for p in online.parameters()), online.state_size, place, directory)
    memory = parts.memory(cfg, spec, sampler, envs.num_envs, online.state_size, place, directory)
    times, learner = parts.times(cfg), parts.learner(cfg, online, device)
    engine = instantiate(cfg.execution.engine)(device, times.updates_due(0, times.steps) * learner.steps)
    actor = Actor(
        online, instantiate(cfg.exploration), device, generator(seed, "exploration", device), envs.num_envs
    )  # fmt: skip
    collector = _collector(cfg, envs, actor, memory, engine)
    trainer = Trainer(
        collector=collector, actor=actor, memory=memory, learner=learner,
        update=flushed(_update(memory, learner, engine, device)),
        evaluate=parts.Evaluator(cfg, online, device, envs),
        times=times, seed=seed, gamma=cfg.gamma, directory=directory, logger=Logger(directory, purge_step),
    )  # fmt: skip
    shown = card(cfg, envs, memory_plan, why, engine.why, directory)
    return Run(trainer, device, engine.why, shown, doubts(cfg, learner.lr_schedule))


def _update(memory: Memory, learner: Learner, engine: Any, device: torch.device) -> Callable:
    """Sampling, learning and reporting, captured as one; where the memory lies elsewhere, the learning alone."""

    def capture(step: Callable) -> Callable:
        return engine.capture(step, learner.optimizer) if learner.passes is None else step

    if learner.passes is not None:  # one gradient step is the program: all of them in one would be a very long one
        learner.descend_rows = engine.capture(learner.descend_rows, learner.optimizer)
    if memory.ring.device.type == device.type:
        return capture(partial(_once, memory, learner.update))
    names: list[str] = []  # of a batch's tensors, in the order in which a captured step is given them

    @capture
    def learn(*tensors: Tensor) -> tuple[Tensor, Tensor | None]:
        return learner.update(Batch(**dict(zip(names, tensors, strict=True)), burn_in=memory.burn_in))

    def travel(batch: Batch) -> tuple[Tensor, Tensor | None]:
        names[:] = batch.tensors()
        return learn(*(x.to(device) for x in batch.tensors().values()))

    return partial(_once, memory, travel)


def _once(memory: Memory, learn: Callable) -> tuple[Tensor, dict[str, Tensor]]:
    batch = memory.sample()
    stats, td_error = learn(batch)
    memory.report(batch, td_error)
    return stats, batch.tensors()


def _collector(cfg: DictConfig, envs: Any, actor: Actor, memory: Memory, engine: Any) -> Any:
    """What acts in the environments, where there is something to act in."""
    if "path" in cfg.replay:
        return Offline(envs)
    ticks = max(1, min(STAGE_TICKS, memory.ring.rows // 4))  # a small ring, small blocks
    if isinstance(envs, TensorEnvs):
        return TensorCollector(envs, actor, ticks, engine.capture)
    actor.policy = engine.capture(actor.policy, small=True)
    return Collector(envs, actor, Stage(envs.spec, envs.num_envs, ticks, actor.network.state_size))
