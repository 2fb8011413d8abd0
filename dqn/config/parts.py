"""The configuration's parts, one at a time: worlds, network, clock, learner, memory, evaluation."""

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from dqn.acting.actor import Actor
from dqn.acting.exploration import EpsilonGreedy
from dqn.causal_lm import load
from dqn.config.automatic import is_automatic, picked
from dqn.config.cli import explain, run_config, run_directory
from dqn.config.conversations import language_rows
from dqn.config.recorded_data import recorded
from dqn.config.trust import check_parts, modules_to_trust
from dqn.device import choose_device, set_precision
from dqn.envs.gym import GymEnvs
from dqn.envs.lm import make_language, spec_of
from dqn.envs.make import make
from dqn.envs.tensor.envs import TensorEnvs
from dqn.envs.vector_of_one import Alone
from dqn.errors import RunError, UsageError
from dqn.learning.learner import Learner
from dqn.learning.minibatches import Passes
from dqn.learning.objective import Objective
from dqn.networks.fitting import automatic
from dqn.networks.qnetwork import QNetwork
from dqn.networks.records import inner
from dqn.ops.clock import Times
from dqn.programs import Plain, Prepare, as_written
from dqn.protocols import Engine, Sampler
from dqn.replay.dataset import best, count, padding_rows
from dqn.replay.frames import frame
from dqn.replay.memory import Memory
from dqn.replay.ring import Ring
from dqn.seeding import generator, stream
from dqn.state import part
from dqn.tracking.checkpoint import Checkpoints
from dqn.types import Spec

log = logging.getLogger("dqn")

NO_CORE = "dqn.networks.cores.nothing"


def wrappers_of(cfg: DictConfig) -> dict[str, Any]:
    """The configured wrappers by name, each waiting for its environment."""
    named = (cfg.env.get("wrappers") or {}).items()
    with making("env.wrappers"):
        return {name: instantiate(node, _partial_=True) for name, node in named if node is not None}


def environments(cfg: DictConfig, device: torch.device | str = "cpu", **changes: Any) -> GymEnvs | TensorEnvs:
    """The configured environments, with some arguments changed; those that are tensors on `device`."""
    if "model" in cfg.env:
        return language_environments(cfg, cfg.env.num_envs, "train")
    wrappers = wrappers_of(cfg)
    if "world" in cfg.env:
        if OmegaConf.is_missing(cfg.env.world, "_target_"):
            raise UsageError("env.world._target_ has no value: name a class as those of dqn.envs.tensor are.")
        if wrappers:
            raise UsageError(f"Tensor worlds take no wrappers: set env.wrappers.{next(iter(wrappers))}=null.")
        options = {**cfg.env, **changes}
        with making("env.world"):
            world = instantiate(cfg.env.world)
        return TensorEnvs(world, options["num_envs"], device, options["max_episode_steps"])
    if OmegaConf.is_missing(cfg.env, "id"):
        raise UsageError("env.id has no value: name a Gymnasium environment with env.id=NAME.")
    episode_info = cfg.tracking.get("info") or ()  # a run of an earlier version has none
    options: dict[str, Any] = {**OmegaConf.to_container(cfg.env, resolve=True), **changes, "wrappers": wrappers}  # type: ignore[dict-item]
    options["episode_info"] = tuple(episode_info)
    envs = make(**options)
    same = (options["vectorization"], options["autoreset"]) == ("sync", "same_step")
    if not same or not Alone.fits(envs):
        return envs
    return Alone(
        envs.envs, "none" if envs.silent else "auto", max_actions=envs.max_actions, episode_info=envs.episode_info
    )


def language_options(cfg: DictConfig) -> dict[str, Any]:
    """The options of env=lm; of recorded texts, which bring their prompts, those are the file's."""
    options: Any = OmegaConf.to_container(cfg.env, resolve=True)
    if _texts(cfg) and options["prompts"] is None and options["task"] is None:
        options["prompts"] = cfg.replay.path
    return options


def _texts(cfg: DictConfig) -> bool:
    """Whether the experience are recorded texts."""
    return "model" in cfg.env and str(cfg.replay.get("path")).endswith(".jsonl")


def language_environments(cfg: DictConfig, num_envs: int, split: str) -> Any:
    """So many texts of the configured language model, with prompts of `split`."""
    return make_language(language_options(cfg), num_envs, choose_device(cfg.device)[0], split, not _texts(cfg))


def spec(cfg: DictConfig) -> Spec:
    """What the configured environments show; of a language model without its prompts and its score."""
    if "model" in cfg.env:
        lm = load(cfg.env.model, cfg.env.dtype)
        return spec_of(lm, cfg.env.candidates, cfg.env.top_p < 1)
    return environments(cfg, num_envs=1).spec


def evaluation_environments(cfg: DictConfig, count: int) -> GymEnvs | TensorEnvs:
    """So many environments for evaluations alone, in this process."""
    if "model" in cfg.env:
        return language_environments(cfg, count, "test")
    way = "vector_entry_point" if cfg.env.get("vectorization") == "vector_entry_point" else "sync"
    return environments(cfg, num_envs=count, vectorization=way)


def function(node: DictConfig) -> Any:
    """A part that is a function with its numbers filled in; freed from Hydra's checks, which every call
    would repeat."""
    made = instantiate(node)
    if not isinstance(made, partial):
        return made
    signature(made.func).bind_partial(*made.args, **made.keywords)  # or a wrong name would be found in the first update
    return partial(made.func, *made.args, **made.keywords)


@contextmanager
def making(name: str) -> Iterator[None]:
    """What goes wrong while a part is made of its options is the options' fault: a sentence that names the part.

    Errors: UsageError.
    """
    try:
        yield
    except (UsageError, RunError, MemoryError):
        raise
    except InstantiationException as error:
        if isinstance(error.__cause__, (UsageError, RunError)):
            raise error.__cause__ from error
        raise UsageError(explain(error)) from error
    except (ValueError, NotImplementedError) as error:
        raise UsageError(f"{' '.join(str(error).split()).rstrip('.')}.") from error
    except Exception as error:
        if "memory" in str(error):
            raise
        log.debug("What was raised", exc_info=True)
        said = " ".join(str(error).split())[:160]
        raise UsageError(
            f"{name} cannot be made with these options ({type(error).__name__}: {said}): look at {name}.* and tuned.*."
        ) from error


def torso(node: DictConfig, spec: Spec) -> Any:
    """The configured torso for what is observed, `spec`."""
    made = instantiate(node)
    choices = made.keywords.pop("auto", None) if isinstance(made, partial) else None
    return automatic(spec, made, **choices) if is_automatic(node) and choices else made(spec)


def with_dense_layer(cfg: DictConfig, spec: Spec) -> DictConfig:
    """The configuration of the network as it is built: with `dense_in: output` the torso is without its last hidden
    layer, and the output has it in front of its own, with the torso's norm.

    Nothing moves where a core follows the torso, where the torso has no option `hidden` (a table, a Dict, some of
    one's own), or where that layer is its only one in front of a vector.
    """
    if cfg.dense_in != "output" or cfg.core.get("_target_") != NO_CORE or "hidden" not in cfg.output:
        return cfg
    cfg = copy.deepcopy(cfg)
    torso = picked(cfg.torso, inner(spec))
    hidden = None if torso is None else torso.get("hidden")
    *kept, moved = [*hidden] if OmegaConf.is_list(hidden) and hidden else [hidden]
    only = OmegaConf.is_list(hidden) and not kept
    if torso is None or only or not isinstance(moved, int) or moved < 1:  # the torso itself refuses what is no width
        return cfg
    torso.hidden, cfg.output.hidden = kept or None, [moved, *cfg.output.hidden]
    if cfg.output.norm is None:
        cfg.output.norm = torso.get("norm")
    return cfg


def network(cfg: DictConfig, spec: Spec) -> QNetwork:
    """A Q-network on the CPU with parameters drawn from the run's own stream."""
    cfg = with_dense_layer(cfg, spec)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(cfg.seed, "parameters"))
        with making("normalizer"):
            normalizer = instantiate(cfg.normalizer)(inner(spec))
        with making("torso"):
            seen = torso(cfg.torso, inner(spec))
        with making("core"):
            core = instantiate(cfg.core)(seen.features)
        features = seen.features if core is None else core.features
        with making("head"):
            head = instantiate(cfg.head)(features, spec.num_actions)
        made = QNetwork(seen, head, core, spec.parts, set_precision(cfg.execution.precision), normalizer)
    return made.to(memory_format=torch.channels_last) if cfg.execution.channels_last else made  # pyright: ignore[reportCallIssue, reportArgumentType]


def first_network(cfg: DictConfig, spec: Spec) -> QNetwork:
    """The network that a run begins with: a new one, or with the weights of another run (`init_from`).

    Errors: UsageError where that run's network is another one.
    """
    made = network(cfg, spec)
    if cfg.init_from is None or cfg.resume is not None:
        return made
    same = "the same torso, core, layer, output and head, and an environment with the same spaces"
    fit(made, "init_from", cfg.init_from, same)
    return made


def times(cfg: DictConfig) -> Times:
    """When everything happens, in env_steps."""
    given = {f.name: section[f.name] for section in (cfg, cfg.tracking) for f in fields(Times) if f.name in section}
    return Times(**given, target_period=cfg.target.period)


def teacher(cfg: DictConfig, spec: Spec) -> QNetwork:
    """The network of the run that teaches this one (`teacher`), as it acts where nothing is learnt.

    Errors: UsageError where there is none, or it cannot be shown what this run sees.
    """
    if cfg.teacher is None:
        raise UsageError("terms=distillation imitates another run: name its directory with teacher=RUN.")
    if "model" in cfg.env:
        raise UsageError("teacher= is a network of values, and env=lm has a language model: choose algorithm=lm_clone.")
    directory = run_directory("teacher", cfg.teacher)
    stored = run_config(directory)
    stored.env, stored.execution = cfg.env, cfg.execution  # the teacher is shown what this run sees
    check_parts(stored, directory / "config.yaml", modules_to_trust(cfg, directory))
    made = network(stored, spec)
    if made.state_size:
        raise UsageError(f"teacher={cfg.teacher} remembers what it saw before: name a run with core=none.")
    fit(made, "teacher", cfg.teacher, "the environment that it was trained in, and its wrappers")
    return made.eval().requires_grad_(False)


def fit(made: QNetwork, option: str, directory: str, choose: str) -> None:
    """Give a network the weights of another run, the one that `option` names.

    Errors: UsageError where that run's network is another one; `choose` says what to do.
    """
    own = made.state_dict()
    weights = part(Checkpoints(Path(directory) / "checkpoints").load(weights_only=True).tensors, "learner/online/")
    for name in [*own, *weights]:
        here, there = (tuple(state[name].shape) if name in state else "nothing" for state in (own, weights))
        if here != there:
            raise UsageError(
                f"{option}={directory} has a network of its own: {name} is {there} there and {here} here; choose "
                f"{choose}."
            )
    made.load_state_dict(weights)


def learner(
    cfg: DictConfig, online: QNetwork, spec: Spec, device: torch.device, prepare: Prepare = as_written
) -> Learner:
    """What learns, with its loss and the way it takes a batch."""
    taken = (cfg.passes.epochs, cfg.passes.minibatches)
    passes = Passes(*taken, generator(cfg.seed, "minibatches", device)) if taken != (1, 1) else None
    noise = generator(cfg.seed, "noise", device), generator(cfg.seed, "target noise", device)
    terms = []
    for name, node in cfg.terms.items():
        with making(f"terms.{name}"):
            taught = {"teacher": teacher(cfg, spec).to(device)} if "teacher" in node else {}
            terms.append(instantiate(node, _partial_=True)(**taught))
    with making("backup"):
        backup = function(cfg.backup)
    with making("transform"):
        transform = instantiate(cfg.transform)
    with making("lr_schedule"):
        lr = instantiate(cfg.lr_schedule)
        lr(0)
    with making("optimizer"):
        optimizer = instantiate(cfg.optimizer)
        objective = Objective(backup, transform, cfg.lambda_, terms, cfg.get("td_weight", 1.0))
        return Learner(online, objective, optimizer, cfg.target.polyak, cfg.max_grad_norm, lr, passes, noise, prepare)


def memory(
    cfg: DictConfig,
    spec: Spec,
    sampler: Any,
    num_envs: int,
    state_size: int,
    device: torch.device,
    directory: Path,
    prepare: Prepare = as_written,
) -> Memory:
    """The replay memory, filled where experience is given."""
    replay, sequence = cfg.replay, cfg.replay.length > 1 or state_size > 0
    window = Memory.window_for(cfg.n_step, replay.length, replay.burn_in)
    stack, padding = replay.get("frame_stack", 1), replay.get("frame_padding", "reset")
    kept = frame(spec, stack)
    if _texts(cfg):
        lm = load(cfg.env.model, cfg.env.dtype)
        blocks = [*language_rows(replay.path, lm, spec, cfg.env.top_p)]
    else:
        blocks = [*recorded(replay.path, spec, kept)] if "path" in replay else []
    if replay.get("best", 1.0) < 1:
        blocks = [*best(blocks, replay.best)]
    capacity, columns = (replay.capacity, num_envs) if not blocks else (replay.capacity or count(blocks), 1)
    file = directory / "replay.obs" if replay.get("device") == "memmap" else None
    stride = replay.stride if sequence else None
    shape = (capacity, columns, window, device, stride, state_size)
    try:
        ring = Ring(kept, *shape, file, stack, padding, prepare)
    except (MemoryError, RuntimeError) as error:
        size = Ring.bytes_for(kept, capacity, columns, window, state_size, stride, stack) / 2**30
        raise UsageError(
            f"There is no memory for {capacity:,} transitions ({size:.2f} GiB): set a smaller replay.capacity."
        ) from error
    for block in [*blocks, *([padding_rows(kept, window)] if blocks else [])]:
        ring.extend(block)
    return Memory(
        ring, sampler, cfg.gamma, cfg.n_step, generator(cfg.seed, "replay", device), replay.length, replay.burn_in,
        replay.stored_state, cfg.reward_clip,
    )  # fmt: skip


def actor(
    cfg: DictConfig, network: QNetwork, device: torch.device, num_envs: int, prepare: Prepare = as_written
) -> Actor:
    """What acts while a run learns, with random numbers of its own."""
    with making("exploration"):
        exploration = instantiate(cfg.exploration)
        exploration.rate(0)
    return Actor(network, exploration, device, generator(cfg.seed, "exploration", device), num_envs, prepare)


def evaluation_policy(cfg: DictConfig, epsilon: Any, sample: bool | None = None) -> Any:
    """How a network acts where nothing is learnt: greedily but for `epsilon`, a schedule; a guided policy as it is,
    with `sample` false without random numbers."""
    settled = getattr(instantiate(cfg.exploration), "settled", None)
    return EpsilonGreedy(epsilon) if settled is None else settled(sample)


def engine(cfg: DictConfig, device: torch.device, updates: int) -> Engine:
    """What makes programs of the steps on a device, `updates` of them to come."""
    with making("execution.engine"):
        return instantiate(cfg.execution.engine)(device, updates)


def gradient_steps(cfg: DictConfig) -> int:
    """Gradient steps in one update."""
    return cfg.passes.epochs * cfg.passes.minibatches


def acting_program(cfg: DictConfig, device: torch.device) -> Prepare:
    """What makes a program of a policy where nothing is learnt."""
    if cfg.execution.engine._target_ == f"{Plain.__module__}.{Plain.__qualname__}":
        return as_written
    from dqn.execution.engines import Eager

    return partial(Eager(device, 0).capture, small=True)


def sampler(cfg: DictConfig) -> Sampler:
    """What draws from the replay memory."""
    with making("replay.sampler"):
        return instantiate(cfg.replay.sampler)
