"""The configuration's parts, one at a time: worlds, network, clock, learner, memory, evaluation."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from dqn.acting.actor import Actor
from dqn.acting.exploration import EpsilonGreedy
from dqn.envs.alone import Alone
from dqn.envs.gym import GymEnvs
from dqn.envs.making import make
from dqn.envs.tensor.envs import TensorEnvs
from dqn.execution.device import set_precision
from dqn.learning.learner import Learner
from dqn.learning.objective import Objective
from dqn.learning.passes import Passes
from dqn.networks.qnetwork import QNetwork
from dqn.networks.records import inner
from dqn.offline import recorded
from dqn.ops.clock import Times
from dqn.ops.schedules import Constant
from dqn.replay.dataset import behind, count
from dqn.replay.frames import frame
from dqn.replay.memory import Memory
from dqn.replay.ring import Ring
from dqn.tracking.evaluation import known_values, play
from dqn.tracking.seeding import generator, stream
from dqn.types import Spec, UsageError

NO_CORE = "dqn.networks.cores.nothing"


def wrappers_of(cfg: DictConfig) -> dict[str, Any]:
    """The configured wrappers by name, each waiting for its environment."""
    named = (cfg.env.get("wrappers") or {}).items()
    return {name: instantiate(node, _partial_=True) for name, node in named if node is not None}


def environments(cfg: DictConfig, device: torch.device | str = "cpu", **changes: Any) -> GymEnvs | TensorEnvs:
    """The configured environments, with some arguments changed; those that are tensors on `device`."""
    wrappers = wrappers_of(cfg)
    if "world" in cfg.env:
        if OmegaConf.is_missing(cfg.env.world, "_target_"):
            raise UsageError("env.world._target_ has no value: name a class as those of dqn.envs.tensor are.")
        if wrappers:
            raise UsageError(f"Tensor worlds take no wrappers: set env.wrappers.{next(iter(wrappers))}=null.")
        options = {**cfg.env, **changes}
        limits = [n for n in (options["max_episode_steps"], options.get("step_cap")) if n is not None]
        world = instantiate(cfg.env.world)
        limits += [world.limit] if options["max_episode_steps"] is None and world.limit else []
        return TensorEnvs(world, options["num_envs"], device, min(limits, default=None))
    if OmegaConf.is_missing(cfg.env, "id"):
        raise UsageError("env.id has no value: name a Gymnasium environment with env.id=NAME.")
    options: dict[str, Any] = {**OmegaConf.to_container(cfg.env, resolve=True), **changes, "wrappers": wrappers}  # type: ignore[dict-item]
    envs = make(**options)
    same = (options["vectorization"], options["autoreset"]) == ("sync", "same_step")
    return Alone(envs.envs, "none" if envs.silent else "auto") if same and Alone.fits(envs) else envs


def evaluation_environments(cfg: DictConfig, episodes: int) -> GymEnvs | TensorEnvs:
    """Environments of their own for an evaluation, in this process, each episode bounded by the cap."""
    way = "vector_entry_point" if cfg.env.get("vectorization") == "vector_entry_point" else "sync"
    count = min(episodes, cfg.tracking.evaluate_envs)
    return environments(cfg, num_envs=count, vectorization=way, step_cap=cfg.tracking.evaluate_cap)


def function(node: DictConfig) -> Any:
    """A part that is a function with its numbers filled in; freed from Hydra's checks, which every call
    would repeat."""
    made = instantiate(node)
    return partial(made.func, *made.args, **made.keywords) if isinstance(made, partial) else made


@contextmanager
def _named(part: str) -> Iterator[None]:
    """A word where a number belongs is known only to the part that meets it."""
    try:
        yield
    except TypeError as error:
        raise UsageError(f"An option of {part} has the wrong type ({error}): look at {part}.* and tuned.*.") from error


def with_dense_layer(cfg: DictConfig) -> DictConfig:
    """The configuration of the network as it is built: with `dense_in: output` the torso is without its last hidden
    layer, and the output has it in front of its own, with the torso's norm.

    Nothing moves where a core follows the torso, where the torso has no option `hidden` (a table, a Dict, some of
    one's own), or where that layer is its only one in front of a vector.
    """
    if cfg.dense_in != "output" or cfg.core.get("_target_") != NO_CORE or "hidden" not in cfg.output:
        return cfg
    hidden = cfg.torso.get("hidden")
    *kept, moved = [*hidden] if OmegaConf.is_list(hidden) and hidden else [hidden]
    only = OmegaConf.is_list(hidden) and not kept
    if only or not isinstance(moved, int) or moved < 1:  # what is no width the torso itself refuses
        return cfg
    cfg = copy.deepcopy(cfg)
    cfg.torso.hidden, cfg.output.hidden = kept or None, [moved, *cfg.output.hidden]
    if cfg.output.norm is None:
        cfg.output.norm = cfg.torso.get("norm")
    return cfg


def network(cfg: DictConfig, spec: Spec) -> QNetwork:
    """A Q-network on the CPU with parameters drawn from the run's own stream."""
    cfg = with_dense_layer(cfg)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(cfg.seed, "parameters"))
        with _named("torso"):
            torso = instantiate(cfg.torso)(inner(spec))
        with _named("core"):
            core = instantiate(cfg.core)(torso.features)
        features = torso.features if core is None else core.features
        with _named("head"):
            head = instantiate(cfg.head)(features, spec.num_actions)
        made = QNetwork(torso, head, core, spec.parts, set_precision(cfg.execution.precision))
    return made.to(memory_format=torch.channels_last) if cfg.execution.channels_last else made  # pyright: ignore[reportCallIssue, reportArgumentType]


def times(cfg: DictConfig) -> Times:
    """When everything happens, in env_steps."""
    given = {f.name: section[f.name] for section in (cfg, cfg.tracking) for f in fields(Times) if f.name in section}
    return Times(**given, target_period=cfg.target.period)


def learner(cfg: DictConfig, online: QNetwork, device: torch.device) -> Learner:
    """What learns, with its loss and the way it takes a batch."""
    taken = (cfg.passes.epochs, cfg.passes.minibatches)
    passes = Passes(*taken, generator(cfg.seed, "minibatches", device)) if taken != (1, 1) else None
    noise = generator(cfg.seed, "noise", device), generator(cfg.seed, "target noise", device)
    terms = [*map(instantiate, cfg.terms.values())]
    objective = Objective(function(cfg.backup), instantiate(cfg.transform), cfg.lambda_, terms)
    optimizer, lr = instantiate(cfg.optimizer), instantiate(cfg.lr_schedule)
    with _named("optimizer"):
        return Learner(online, objective, optimizer, cfg.target.polyak, cfg.max_grad_norm, lr, passes, noise)


def memory(
    cfg: DictConfig, spec: Spec, sampler: Any, num_envs: int, state_size: int, device: torch.device, directory: Path
) -> Memory:
    """The replay memory, filled where experience is given."""
    replay, sequence = cfg.replay, cfg.replay.length > 1 or state_size > 0
    window = Memory.window_for(cfg.n_step, replay.length, replay.burn_in)
    stack, padding = replay.get("frame_stack", 1), replay.get("frame_padding", "reset")
    kept = frame(spec, stack)
    blocks = [*recorded(replay.path, spec, kept)] if "path" in replay else []
    capacity, columns = (replay.capacity, num_envs) if not blocks else (replay.capacity or count(blocks), 1)
    file = directory / "replay.obs" if replay.get("device") == "memmap" else None
    stride = replay.stride if sequence else None
    shape = (capacity, columns, window, device, stride, state_size)
    ring = Ring(kept, *shape, file, stack, padding)
    for block in [*blocks, *([behind(kept, window)] if blocks else [])]:
        ring.extend(block)
    return Memory(
        ring, sampler, cfg.gamma, cfg.n_step, generator(cfg.seed, "replay", device), replay.length, replay.burn_in,
        replay.stored_state, cfg.reward_clip,
    )  # fmt: skip


def actor(cfg: DictConfig, network: QNetwork, device: torch.device, num_envs: int) -> Actor:
    """What acts while a run learns, with luck of its own."""
    return Actor(network, instantiate(cfg.exploration), device, generator(cfg.seed, "exploration", device), num_envs)


def engine(cfg: DictConfig, device: torch.device, clock: Times, steps: int) -> Any:
    """What runs the steps of a device; an update takes `steps` gradient steps."""
    return instantiate(cfg.execution.engine)(device, clock.updates_due(0, clock.steps) * steps)


class Evaluator:
    """Evaluates a network with the run's settings; the same start states every time."""

    def __init__(self, cfg: DictConfig, network: QNetwork, device: torch.device, envs: GymEnvs | TensorEnvs):
        self.cfg, self.network, self.device = cfg, network, device
        self.optimal = envs.optimal_q(cfg.gamma) if inner(envs.spec).states else None  # Q* of states that are seen

    def __call__(
        self, episodes: int | None = None, epsilon: float | None = None, seed: int | None = None,
        stop: Callable[[], bool] = bool,
    ) -> dict[str, Any]:  # fmt: skip
        cfg = self.cfg
        episodes = cast(int, cfg.tracking.evaluate_episodes if episodes is None else episodes)
        epsilon = cast(float, cfg.tracking.evaluate_epsilon if epsilon is None else epsilon)
        seed = cast(int, cfg.seed if seed is None else seed)
        coins = generator(seed, "evaluation", self.device)
        envs = evaluation_environments(cfg, episodes)
        actor = Actor(self.network, EpsilonGreedy(Constant(epsilon)), self.device, coins, envs.num_envs)
        self.network.eval()  # mean weights and fixed fractions: nothing is drawn
        try:
            result = play(actor, envs, episodes, stream(seed, "evaluation"), cfg.tracking.evaluate_cap, stop)
            if self.optimal is not None:
                h = instantiate(cfg.transform)
                result["known_q"] = known_values(self.network, self.optimal, self.device, cfg.gamma, h)
        finally:
            self.network.train()
            envs.close()
        return {**result, "epsilon": epsilon}
