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
from dqn.acting.exploration import EpsilonGreedy
from dqn.card import card, plan
from dqn.collector import Collector, Offline
from dqn.envs.alone import Alone
from dqn.envs.gym import GymEnvs, make
from dqn.envs.tensor.envs import TensorEnvs
from dqn.execution.device import choose_device, set_precision
from dqn.learning.learner import Learner
from dqn.learning.objective import Objective
from dqn.learning.passes import Passes
from dqn.networks.qnetwork import QNetwork
from dqn.networks.records import inner
from dqn.ops.clock import Times
from dqn.ops.schedules import Constant
from dqn.options import check, fit
from dqn.replay.dataset import count, minari_rows, run_rows
from dqn.replay.memory import Memory
from dqn.replay.ring import Ring
from dqn.replay.stage import Stage
from dqn.tensor_collector import TensorCollector
from dqn.tracking.checkpoint import Checkpoints
from dqn.tracking.evaluation import known_values, play
from dqn.tracking.logger import Logger
from dqn.tracking.seeding import generator, stream
from dqn.trainer import Trainer
from dqn.types import Rows, Spec, UsageError

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


def environments(cfg: DictConfig, device: torch.device | str = "cpu", **changes: Any) -> GymEnvs | TensorEnvs:
    """The configured environments, with some arguments changed; those that are tensors on `device`."""
    if "world" in cfg.env:
        if OmegaConf.is_missing(cfg.env.world, "_target_"):
            raise UsageError("env.world._target_ has no value: name a class as those of dqn.envs.tensor are.")
        options = {**cfg.env, **changes}
        limits = [n for n in (options["max_episode_steps"], options.get("step_cap")) if n is not None]
        world = instantiate(cfg.env.world)
        limits += [world.limit] if options["max_episode_steps"] is None and world.limit else []
        return TensorEnvs(world, options["num_envs"], device, min(limits, default=None))
    if OmegaConf.is_missing(cfg.env, "id"):
        raise UsageError("env.id has no value: name a Gymnasium environment with env.id=NAME.")
    options: dict[str, Any] = {**OmegaConf.to_container(cfg.env, resolve=True), **changes}  # type: ignore[dict-item]
    envs = make(**options)
    same = (options["vectorization"], options["autoreset"]) == ("sync", "same_step")
    return Alone(envs.envs) if same and Alone.fits(envs) else envs


def evaluation_environments(cfg: DictConfig, episodes: int) -> GymEnvs | TensorEnvs:
    """Environments of their own for an evaluation, in this process, each episode bounded by the cap."""
    way = "vector_entry_point" if cfg.env.get("vectorization") == "vector_entry_point" else "sync"
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
        torso = instantiate(cfg.torso)(inner(spec))
        core = instantiate(cfg.core)(torso.features)
        features = torso.features if core is None else core.features
        head = instantiate(cfg.head)(features, spec.num_actions)
        made = QNetwork(torso, head, core, spec.parts, set_precision(cfg.execution.precision))
    return made.to(memory_format=torch.channels_last) if cfg.execution.channels_last else made  # pyright: ignore[reportCallIssue, reportArgumentType]


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
    envs = environments(cfg, device)
    spec, seed = envs.spec, cfg.seed
    online = network(cfg, spec).to(device)
    sampler = instantiate(cfg.replay.sampler)
    fit(cfg, online.head, sampler, online.state_size)
    memory_plan = plan(cfg, spec, sum(p.numel() for p in online.parameters()), online.state_size, device, directory)
    memory = _memory(cfg, spec, sampler, envs.num_envs, online.state_size, device, directory)
    times = Times(
        **{f.name: cfg[f.name] for f in fields(Times) if f.name in cfg},
        **{f.name: cfg.tracking[f.name] for f in fields(Times) if f.name in cfg.tracking},
        target_period=cfg.target.period,
    )
    learner = Learner(
        online, _objective(cfg), instantiate(cfg.optimizer), cfg.target.polyak, cfg.max_grad_norm,
        instantiate(cfg.lr_schedule), _passes(cfg, device),
        (generator(seed, "noise", device), generator(seed, "target noise", device)),
    )  # fmt: skip
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
    ticks = max(1, min(STAGE_TICKS, memory.ring.rows // 4))  # a small ring, small blocks
    if "path" in cfg.replay:
        collector = Offline(envs)
    elif isinstance(envs, TensorEnvs):
        collector = TensorCollector(envs, actor, ticks, engine.capture)
    else:
        actor.policy = engine.capture(actor.policy, small=True)
        collector = Collector(envs, actor, Stage(spec, envs.num_envs, ticks, online.state_size))
    trainer = Trainer(
        collector=collector, actor=actor, memory=memory, learner=learner, update=update,
        evaluate=Evaluator(cfg, online, device, envs.optimal_q(cfg.gamma)),
        times=times, seed=seed, gamma=cfg.gamma, directory=directory, logger=Logger(directory, purge_step),
    )  # fmt: skip
    return Run(trainer, device, engine.why, card(cfg, envs, memory_plan, why, engine.why, directory))


def _objective(cfg: DictConfig) -> Objective:
    terms = [instantiate(term) for term in cfg.terms.values()]
    return Objective(function(cfg.backup), instantiate(cfg.transform), cfg.lambda_, terms)


def _passes(cfg: DictConfig, device: torch.device) -> Passes | None:
    if (cfg.passes.epochs, cfg.passes.minibatches) == (1, 1):
        return None
    return Passes(cfg.passes.epochs, cfg.passes.minibatches, generator(cfg.seed, "minibatches", device))


def _memory(
    cfg: DictConfig, spec: Spec, sampler: Any, num_envs: int, state_size: int, device: torch.device, directory: Path
) -> Memory:
    replay, sequence = cfg.replay, cfg.replay.length > 1 or state_size > 0
    window = Memory.window_for(cfg.n_step, replay.length, replay.burn_in)
    blocks = [*recorded(replay.path, spec)] if "path" in replay else []
    capacity, columns = (replay.capacity, num_envs) if not blocks else (replay.capacity or count(blocks), 1)
    file = directory / "replay.obs" if replay.get("device") == "memmap" else None
    ring = Ring(spec, capacity, columns, window, device, replay.stride if sequence else None, state_size, file)
    for block in blocks:
        ring.extend(block)
    return Memory(
        ring, sampler, cfg.gamma, cfg.n_step, generator(cfg.seed, "replay", device), replay.length, replay.burn_in,
        replay.stored_state,
    )  # fmt: skip


def recorded(path: str, spec: Spec) -> list[Rows]:
    """The rows of a run's own replay memory, where `path` is its directory, else of a Minari dataset."""
    directory = Path(path)
    if not directory.is_dir():
        return [*minari_rows(path, spec)]  # which asks the dataset itself whether it fits
    snapshot = Checkpoints(directory / "checkpoints").load()
    written, slots = (snapshot.tensors[f"memory/ring/{name}"] for name in ("written", "starts"))
    blocks = [*run_rows(snapshot.chunks, written, slots.shape[0])]
    shape, kind = blocks[0].obs.shape[2:], blocks[0].obs.dtype
    if tuple(shape) != spec.obs_shape:
        raise ValueError(f"replay.path={path} shows observations {tuple(shape)} {kind}, env has {spec.obs_shape}: "
                         "choose the environment that it was recorded in")  # fmt: skip
    return blocks


class Evaluator:
    """Evaluates a network with the run's settings; the same start states every time."""

    def __init__(self, cfg: DictConfig, network: QNetwork, device: torch.device, optimal: Any = None):
        self.cfg, self.network, self.device, self.optimal = cfg, network, device, optimal

    def __call__(
        self, episodes: int | None = None, epsilon: float | None = None, seed: int | None = None
    ) -> dict[str, Any]:
        cfg = self.cfg
        episodes = cast(int, cfg.tracking.evaluate_episodes if episodes is None else episodes)
        epsilon = cast(float, cfg.tracking.evaluate_epsilon if epsilon is None else epsilon)
        seed = cast(int, cfg.seed if seed is None else seed)
        coins = generator(seed, "evaluation", self.device)
        envs = evaluation_environments(cfg, episodes)
        actor = Actor(self.network, EpsilonGreedy(Constant(epsilon)), self.device, coins, envs.num_envs)
        self.network.eval()  # mean weights and fixed fractions: nothing is drawn
        try:
            result = play(actor, envs, episodes, stream(seed, "evaluation"))
            if self.optimal is not None:
                h = instantiate(cfg.transform)
                result["known_q"] = known_values(self.network, self.optimal, self.device, cfg.gamma, h)
        finally:
            self.network.train()
            envs.close()
        return {**result, "epsilon": epsilon}
