"""Training from Python: dqn.train("CartPole-v1") composes the configuration of the command line, and runs the same."""

import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.version import VersionBase
from omegaconf import DictConfig, open_dict, read_write

from dqn.agent import Agent, trained
from dqn.config.cli import CONF, REMOVABLE, check_arguments, one_sentence, run_directory
from dqn.config.resume import STORED, placed, quoted, store_run, values_of_others
from dqn.config.tuned import by_id
from dqn.device import choose_device, same_process
from dqn.envs.passed import Passed, importable, passed, standing
from dqn.errors import UsageError
from dqn.run import Host, Stopped
from dqn.run import train as run_to_its_end
from dqn.trainer import Callback

COMMAND_LINE = ("hydra", "resume", "trust")  # what `overrides` cannot hold
_running = threading.Lock()  # the log, torch's threads and its random numbers belong to the process


def train(
    env: Any = None,
    algorithm: str | None = None,
    steps: int | None = None,
    seed: int | None = None,
    *,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
    directory: str | Path | None = "auto",
    device: str | None = None,
    resume: str | Path | None = None,
    trust: Sequence[str] = (),
    **options: Any,
) -> Agent:
    """Train an agent; see dqn.train.Verb, which is dqn.train as a program calls it."""
    named = {"algorithm": algorithm, "steps": steps, "seed": seed, "device": device, **options}
    given = None if env is None else passed(env)
    with one_sentence(), _alone(), same_process():
        pairs = _pairs({name: value for name, value in named.items() if value is not None}, overrides)
        if resume is None:
            cfg, task = composed("config", [*_choice(given, pairs), *_arguments(pairs)])
        else:
            cfg, task = _resumed(run_directory("resume", str(resume)), given, pairs, trust, env)
            directory = resume
        _check_single(cfg, given, pairs)
        factory = None if given is None else given.factory
        with _place(cfg, directory) as place, standing(str(cfg.env.get("id")), factory):
            host = Host(task, not progress, callbacks, progress, guest=True, kept=directory is not None)
            cfg = placed(cfg, place)
            ended_by = None
            try:
                run_to_its_end(cfg, place, host)
            except Stopped as stopped:
                ended_by = stopped.number
            chosen, _ = choose_device(cfg.device)
            agent = Agent(trained(place, chosen, cfg), chosen, place, given, kept=directory is not None)
    if ended_by is not None:  # whoever handles the signal in this program does so now: Ctrl-C raises KeyboardInterrupt
        signal.raise_signal(ended_by)
    return agent


@contextmanager
def _alone() -> Iterator[None]:
    """One run at a time. Errors: UsageError in another thread, and in a callback."""
    if not _running.acquire(blocking=False):
        raise UsageError(
            "Another run of dqn.train goes on in this process: wait for its end, or start a process of its own."
        )
    try:
        yield
    finally:
        _running.release()


def _pairs(named: dict[str, Any], overrides: Sequence[str] | Mapping[str, Any]) -> list[tuple[str, str]]:
    """Every option that was given, as its name and its value in Hydra's grammar. Errors: UsageError."""
    if isinstance(overrides, str):
        overrides = [overrides]
    if isinstance(overrides, Mapping):
        more = [(name, _written(name, value)) for name, value in _flat(overrides)]
    else:
        more = []
        for override in overrides:
            name, sign, value = str(override).partition("=")
            if not sign and not name.startswith("~"):
                raise UsageError(f"{override!r} is no override: write option=value, or pass a dict.")
            if name.startswith("-"):
                raise UsageError(f"{override!r} is for the command line: dqn.train makes one run.")
            more.append((name, value if sign else ""))
    pairs = [(name, _written(name, value)) for name, value in _flat(named)] + more
    for name, _ in pairs:
        if name.lstrip("+~").partition(".")[0] in COMMAND_LINE:
            raise UsageError(f"{name} is no option of a configuration: pass resume= and trust= to dqn.train itself.")
    words = [name.lstrip("+") for name, _ in pairs]
    for word in words:
        if words.count(word) > 1:
            raise UsageError(f"{word} is given twice: leave one out.")
    return pairs


def _flat(options: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested options as dotted names."""
    for key, value in options.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{name}.")
        else:
            yield (f"++{name}" if name.startswith(REMOVABLE) else name), value


def _written(name: str, value: Any) -> str:
    """A value of Python in Hydra's grammar. Errors: UsageError for what no configuration holds."""
    if hasattr(value, "item") and getattr(value, "shape", None) == ():  # a number of NumPy or torch
        value = value.item()
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (str, Path)):
        return quoted(value)
    if isinstance(value, (list, tuple)):
        return f"[{','.join(_written(name, one) for one in value)}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_written(name, one)}" for key, one in value.items()) + "}"
    if (found := importable(value)) is not None:  # a part of one's own
        return quoted(found.replace(":", "."))
    raise UsageError(
        f"{name} cannot be {value!r}: a configuration holds numbers, texts, lists, dicts, and classes and functions of "
        "modules that can be imported."
    )


def _arguments(pairs: Sequence[tuple[str, str]]) -> list[str]:
    return [name if name.startswith("~") and not value else f"{name}={value}" for name, value in pairs]


def _choice(given: Passed | None, pairs: Sequence[tuple[str, str]]) -> list[str]:
    """The overrides that choose the environment which was passed. Errors: UsageError where they choose one, too."""
    if given is None:
        return []
    names = {name.lstrip("+") for name, _ in pairs}
    if names & {"env", "env.id"}:
        raise UsageError("The environment is given twice: leave env and env.id out of the overrides, or pass no env.")
    if given.factory is None and (CONF / "env" / f"{given.id}.yaml").is_file():
        return [f"env={given.id}"]
    chosen = ["env=gym", f"env.id={quoted(given.id)}"]
    imports = _registered_by(given.id)
    if imports is not None and "env.imports" not in names:
        chosen.append(f"env.imports=[{quoted(imports)}]")
    chosen += [f"++env.kwargs.{name}={_written(name, value)}" for name, value in given.kwargs.items()]
    if given.limit is not None and "env.max_episode_steps" not in names:
        chosen.append(f"env.max_episode_steps={given.limit}")
    only_one = {"env.num_envs": "1", "tracking.evaluate_in": "training", "tracking.evaluate_envs": "1"}
    if given.single:
        chosen += [f"{name}={value}" for name, value in only_one.items() if name not in names]
    return chosen


def _registered_by(id: str) -> str | None:
    """The package that registers an id when it is imported; None where that is Gymnasium itself, or not known."""
    spec = gymnasium.registry.get(id)
    entry = spec.entry_point if spec is not None else None
    package = entry.partition(":")[0].partition(".")[0] if isinstance(entry, str) else ""
    if package in ("", "gymnasium", "__main__"):
        return None
    return "dqn.envs" if package == "dqn" else package


def _check_single(cfg: DictConfig, given: Passed | None, pairs: Sequence[tuple[str, str]]) -> None:
    """Refuse what one environment that exists cannot do. Errors: UsageError."""
    if given is None or not given.single:
        return
    changed = [name for name, _ in pairs if name.lstrip("+~").startswith("env.kwargs")]
    if changed or cfg.env.num_envs != 1 or cfg.env.vectorization != "sync":
        what = changed[0] if changed else f"env.num_envs={cfg.env.num_envs}, env.vectorization={cfg.env.vectorization}"
        raise UsageError(
            f"{given.id} was passed as an environment that exists, which does not go with {what}: pass its class, or a "
            "function that makes it."
        )


def _resumed(
    directory: Path, given: Passed | None, pairs: Sequence[tuple[str, str]], trust: Sequence[str], env: Any
) -> tuple[DictConfig, list[str]]:
    """The configuration of a run that goes on, with numbers changed. Errors: UsageError."""
    if isinstance(env, str):
        raise UsageError(f"A resumed run keeps its environment: leave env={env!r} out.")
    trusted = [trust] if isinstance(trust, str) else [*trust]
    if given is not None and given.module is not None:
        trusted.append(given.module)
    arguments = _arguments(pairs)
    with _stored(directory, arguments, trusted):
        return composed(STORED, [*arguments, f"resume={quoted(directory)}"])


@contextmanager
def _stored(directory: Path, arguments: list[str], trust: Sequence[str]) -> Iterator[None]:
    """The run's configuration where Hydra finds it, for as long as the block runs."""
    store_run(directory, arguments, trust)
    try:
        yield
    finally:
        ConfigStore.instance().repo.pop(f"{STORED}.yaml", None)


def composed(name: str, arguments: list[str]) -> tuple[DictConfig, list[str]]:
    """The configuration that the command line would compose of these arguments, and the overrides of the run in them.

    Nothing in it refers to Hydra any more. Errors: UsageError.
    """
    check_arguments(arguments)
    with _hydra():
        whole = compose(name, overrides=arguments, return_hydra_config=True)
        HydraConfig.instance().set_config(whole)
        task = [*HydraConfig.get().overrides.task]
        with read_write(whole), open_dict(whole):
            del whole["hydra"]
        return values_of_others(by_id(whole)), task


@contextmanager
def _hydra() -> Iterator[None]:
    """Hydra reads this package's conf/ in the block; afterwards it is as the program had it."""
    version: Any = VersionBase.instance()
    usual = GlobalHydra.instance().hydra, HydraConfig.instance().cfg, version.getbase()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra, HydraConfig.instance().cfg = usual[:2]
        version.setbase(usual[2])


@contextmanager
def _place(cfg: DictConfig, directory: str | Path | None) -> Iterator[Path]:
    """The run's directory: `auto` is the one that the command line takes, None one that is deleted in the end."""
    if directory is None:
        with tempfile.TemporaryDirectory(prefix="dqn-", ignore_cleanup_errors=True) as name:
            yield Path(name)
    else:
        yield Path(cfg.run.dir if directory == "auto" else directory).absolute()
