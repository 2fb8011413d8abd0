"""Wires one run: every part of the configuration in its place."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from dqn.config import collectors, parts
from dqn.config.automatic import refuse_unused
from dqn.config.compatible import check_compatible, warnings
from dqn.config.evaluator import Evaluator
from dqn.config.recorder import Filming
from dqn.config.schema import check
from dqn.config.summary import plan, summary
from dqn.device import choose_device, choose_place, flush_denormals
from dqn.learning.learner import Learner
from dqn.networks.records import inner
from dqn.programs import Programs, as_written
from dqn.protocols import Engine
from dqn.replay.memory import Memory
from dqn.seeding import stream
from dqn.tracking.logger import Logger
from dqn.trainer import Callback, Trainer
from dqn.types import Batch


@dataclass
class Run:
    """A wired run and what its verbs need of it."""

    trainer: Trainer
    env_id: str
    device: torch.device
    summary: str
    warnings: list[str]
    filming: Sequence[Filming] = ()

    def close(self) -> None:
        for filming in self.filming:
            filming.close()
        self.trainer.logger.close()
        self.trainer.evaluate.close()
        self.trainer.collector.close()


def run(
    cfg: DictConfig,
    directory: Path,
    purge_step: int | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
) -> Run:
    """Wire one run in `directory`: nothing has been stepped or learnt yet.

    `callbacks` are called as trainer.Trainer says; `progress` shows how far it is.

    Errors: UsageError, also for what a part refuses when it is made.
    """
    check(cfg)
    torch.set_num_threads(cfg.execution.threads)
    torch.manual_seed(stream(cfg.seed, "torch"))  # for parts that draw from torch's own stream, as Dropout does
    device, why = choose_device(cfg.device)
    envs = parts.environments(cfg, device)
    try:
        with parts.making("This run"):
            return _wire(cfg, directory, purge_step, device, why, envs, callbacks, progress)
    except BaseException:
        envs.close()
        raise


def _wire(
    cfg: DictConfig,
    directory: Path,
    purge_step: int | None,
    device: torch.device,
    why: str,
    envs: Any,
    callbacks: Sequence[Callback],
    progress: bool,
) -> Run:
    spec, seed = envs.spec, cfg.seed
    optimal = envs.optimal_q(cfg.gamma) if inner(spec).states else None
    refuse_unused(cfg.torso, inner(spec))
    online = parts.first_network(cfg, spec).to(device)
    sampler = parts.sampler(cfg)
    check_compatible(cfg, online.head, sampler, online.state_size)
    place = choose_place(cfg.replay.get("device", "auto"), device)
    memory_plan = plan(cfg, spec, sum(p.numel() for p in online.parameters()), online.state_size, place, directory)
    times = parts.times(cfg)
    engine = parts.engine(cfg, device, times.updates_due(0, times.steps) * parts.gradient_steps(cfg))
    programs = _programs(engine, place)
    memory = parts.memory(cfg, spec, sampler, envs.num_envs, online.state_size, place, directory, programs.write)
    learner = parts.learner(cfg, online, spec, device, programs.update)
    actor = parts.actor(cfg, online, device, envs.num_envs, programs.act)
    collector = collectors.make_collector(cfg, envs, actor, memory.ring.rows, programs.tick)
    filming = [Filming(cfg, online, device)] if cfg.tracking.get("video_every") else []
    trainer = Trainer(
        collector=collector, actor=actor, memory=memory, learner=learner,
        update=flush_denormals(_update(memory, learner, programs, device)),
        evaluate=Evaluator(cfg, online, device, parts.acting_program(cfg, device), envs, optimal, progress),
        times=times, seed=seed, gamma=cfg.gamma, directory=directory, logger=Logger(directory, purge_step),
        engine=engine, callbacks=[*filming, *callbacks], progress=progress,
    )  # fmt: skip
    shown = summary(parts.with_dense_layer(cfg, envs.spec), envs, memory_plan, why, engine.why, directory)
    return Run(trainer, envs.id, device, shown, warnings(cfg, learner.lr_schedule, envs), filming)


def _programs(engine: Engine, place: torch.device) -> Programs:
    """The programs that an engine makes; rows are written by one on a GPU alone, `place` is where the memory lies."""
    return Programs(
        act=partial(engine.capture, small=True),
        write=engine.capture if place.type == "cuda" else as_written,
        update=engine.capture,
        tick=engine.capture,
    )


def _update(memory: Memory, learner: Learner, programs: Programs, device: torch.device) -> Callable:
    """Sampling, learning and reporting as one program; where the memory lies elsewhere, the learning alone. Where a
    batch is taken apart, one gradient step is the program (learning.learner): all in one would be a very long one."""

    def capture(step: Callable) -> Callable:
        return programs.update(step, learner.optimizer) if learner.passes is None else step

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


def _once(memory: Memory, learn: Callable) -> tuple[Tensor, tuple[Any, ...]]:
    batch = memory.sample()
    stats, td_error = learn(batch)
    memory.report(batch, td_error)
    return stats, (batch.slot, batch.env, batch.weight)
