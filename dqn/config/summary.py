"""The summary of a run and its memory plan: what it is made of and what it will take, said before it starts."""

import shutil
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from dqn import __version__
from dqn.config.automatic import picked_line
from dqn.config.cli import part_name
from dqn.errors import UsageError
from dqn.networks.records import inner
from dqn.replay.frames import frame
from dqn.replay.memory import Memory
from dqn.replay.ring import Ring
from dqn.resources import free_memory
from dqn.types import Spec


def plan(cfg: DictConfig, spec: Spec, parameters: int, state_size: int, place: torch.device, directory: Path) -> str:
    """What will lie in memory, or in a file of the run. Errors: UsageError, with a capacity that fits, where it would
    not."""
    if "path" in cfg.replay:
        return f"replay of {cfg.replay.path} on {place}, {parameters:,} parameters"
    stack = cfg.replay.get("frame_stack", 1)
    window = Memory.window_for(cfg.n_step, cfg.replay.length, cfg.replay.burn_in)
    sizes = (cfg.replay.capacity, cfg.env.num_envs, window, state_size, cfg.replay.stride, stack)
    replay = Ring.bytes_for(frame(spec, stack), *sizes)
    where = str(place)
    if cfg.replay.get("device") == "memmap":
        where, free = f"a file in {directory}", shutil.disk_usage(directory).free
    elif place.type == "cuda":
        free = torch.cuda.mem_get_info(place)[0]
    else:
        free = free_memory()
    if replay > 0.9 * free:
        fits = int(cfg.replay.capacity * 0.8 * free / replay)
        raise UsageError(
            f"A replay memory of {cfg.replay.capacity:,} transitions needs {replay / 2**30:.1f} GiB, "
            f"{free / 2**30:.1f} GiB are free on {where}: set replay.capacity={fits} or less."
        )
    return (
        f"replay of {cfg.replay.capacity:,} transitions {replay / 2**20:.1f} MiB on {where}, {parameters:,} parameters"
    )


def part_line(node: Any) -> str:
    """MLP(hidden=[120, 84], …) for a part's configuration."""
    if not OmegaConf.is_config(node):
        return str(node)
    plain = OmegaConf.to_container(node, resolve=True)

    def line(value: Any) -> str:
        if not isinstance(value, dict):
            return str(value)
        shown = {k: v for k, v in value.items() if not k.startswith("_") and k != "auto" and v is not None}
        inside = ", ".join(f"{k}={line(v)}" for k, v in shown.items())
        return f"{value['_target_'].rpartition('.')[2]}({inside})" if "_target_" in value else inside

    return line(plain)


def numbers(cfg: DictConfig) -> str:
    """Where the numbers are from that were tuned, for the environment and for the recipe on it."""
    taken = {"tuned": cfg.tuned.for_env, "experiment": cfg.tuned.for_pair}
    files = [f"conf/{group}/{name}.yaml" for group, name in taken.items() if name != "none"]
    return ", ".join(files) or f"none tuned for {cfg.env.get('id', 'this environment')}: conf/config.yaml"


def _seen(spec: Spec) -> str:
    if spec.parts:
        return ", ".join(f"{name}: {_seen(part)}" for name, part in spec.parts)
    return f"{spec.states} states" if spec.states else f"{spec.obs_dtype} {spec.obs_shape}"


PARTS = (
    "normalizer", "torso", "core", "layer", "output", "head", "backup", "transform", "exploration", "optimizer",
    "lr_schedule",
)  # fmt: skip


def identity(cfg: DictConfig, env_id: str, torso: Any, flat: bool = False) -> dict[str, Any]:
    """What a run is: the names of its algorithm, of its environment and of every part, for its result and its logs.
    `torso` is the one that was made, as torso=auto may have picked it."""

    def name(option: str) -> Any:
        return OmegaConf.select(cfg, option, throw_on_resolution_failure=False)

    parts = {part: part_name(cfg[part]) for part in PARTS} | {"torso": type(torso).__name__}
    parts |= {"sampler": part_name(cfg.replay.sampler), "terms": "+".join(map(part_name, cfg.terms.values())) or "none"}
    first = {"algorithm": name("chosen.algorithm"), "env": env_id, "seed": cfg.seed}
    return first | (parts if flat else {"parts": parts})


def _dense_line(cfg: DictConfig) -> str:
    """What the output lacks where it should have the torso's last hidden layer, or nothing."""
    if cfg.dense_in != "output" or cfg.output.get("hidden") != []:
        return ""
    return "output, but this torso has no hidden layer to give: output.hidden=[WIDTH] gives the output one of its own"


def summary(cfg: DictConfig, envs: Any, memory_plan: str, why: str, engine: str, directory: Path) -> str:
    """What this run is made of, for the log."""
    spec = envs.spec
    returns = f"n_step={cfg.n_step}" if cfg.lambda_ is None else f"lambda_={cfg.lambda_}"
    lines = {
        "env": f"{envs.id} × {envs.num_envs} ({envs.mode.value}), sees {_seen(spec)}, {spec.num_actions} actions",
        "numbers": numbers(cfg),
        "normalizer": part_line(cfg.normalizer),
        "torso": picked_line(cfg.torso, inner(spec), part_line),
        **{part: part_line(cfg[part]) for part in ("core", "head")},
        "dense_in": _dense_line(cfg),
        **{part: part_line(cfg[part]) for part in ("backup", "transform", "terms", "replay")},
        "returns": f"{returns}, gamma={cfg.gamma}",
        **{part: part_line(cfg[part]) for part in ("exploration", "target", "optimizer", "lr_schedule")},
        "time": f"{cfg.steps:,} env_steps from seed {cfg.seed}; after {cfg.learning_starts:,} of them, "
        f"{cfg.updates * cfg.passes.epochs * cfg.passes.minibatches} update(s) every {cfg.train_every}",
        "device": f"{why}; engine {engine}, {cfg.execution.threads} thread(s)"
        f"{'; acts in a process of its own' if cfg.execution.actor == 'process' else ''}",
        "memory": memory_plan,
        "run": str(directory.resolve()),
    }
    shown = {name: text for name, text in lines.items() if text not in ("", "nothing()")}
    return f"dqn {__version__}\n" + "\n".join(f"  {name:<12} {text}" for name, text in shown.items())
