"""Where a run acts: in this process or in one of its own, in worlds that are tensors, or nowhere."""

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any, cast

import torch
from omegaconf import DictConfig, OmegaConf

from dqn import protocols
from dqn.acting.actor import Actor
from dqn.acting.collector import Collector
from dqn.acting.fixed_lag import FixedLagCollector
from dqn.acting.offline import Offline
from dqn.acting.process import ProcessTransport
from dqn.acting.tensor_collector import TensorCollector
from dqn.config import parts
from dqn.envs.gym import GymEnvs
from dqn.envs.tensor.envs import TensorEnvs
from dqn.programs import Prepare
from dqn.replay.stage import Stage
from dqn.seeding import stream

STAGE_TICKS, STAGE_BYTES = 256, 2**26  # rows gathered, at most, and what they show, before they go to the ring


def make_collector(cfg: DictConfig, envs: Any, actor: Actor, rows: int, tick: Prepare) -> protocols.Collector:
    """What acts in the environments, where there is something to act in; a ring of few `rows` gets small blocks."""
    if "path" in cfg.replay:
        return Offline(envs)
    seen = envs.num_envs * prod(envs.spec.obs_shape) * envs.spec.obs_dtype.itemsize
    ticks = max(1, min(STAGE_TICKS, STAGE_BYTES // seen, rows // 4))
    if isinstance(envs, TensorEnvs):
        return TensorCollector(envs, actor, ticks, tick)
    stage = partial(
        Stage, envs.spec, envs.num_envs, ticks, actor.network.state_size, episode_info=len(envs.episode_info)
    )
    if cfg.execution.actor == "local":
        return Collector(envs, actor, stage())
    plain = OmegaConf.to_container(OmegaConf.merge(cfg, {"run": None}), resolve=True)  # which names the time of day
    transport = ProcessTransport(partial(make_in_child, plain, stage), stage, actor.network)
    return FixedLagCollector(transport, envs)


def make_in_child(plain: Any, stage: Callable[[], Stage]) -> Collector:
    """A collector for this process alone, on its CPU, from a run's configuration as plain values."""
    cfg, cpu = cast(DictConfig, OmegaConf.create(plain)), torch.device("cpu")
    torch.set_num_threads(cfg.execution.threads)
    torch.manual_seed(stream(cfg.seed, "acting"))
    envs = cast(GymEnvs, parts.environments(cfg))
    network = parts.first_network(cfg, envs.spec)
    act = partial(parts.engine(cfg, cpu, 0).capture, small=True)
    actor = parts.actor(cfg, network, cpu, envs.num_envs, act)
    network.draw_from(actor.generator)
    return Collector(envs, actor, stage())
