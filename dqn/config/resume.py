"""What lies in a run's directory already: a resume, and a sweep that is run once more."""

import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

from dqn.config.cli import CONF, names, opened_run, run_config, run_directory
from dqn.config.schema import FIXED
from dqn.config.trust import INTERPOLATION
from dqn.errors import UsageError

if TYPE_CHECKING:
    from dqn.tracking.checkpoint import Snapshot  # which imports torch

log = logging.getLogger("dqn")
ALONE = "agent_alone"  # the counter by which a checkpoint says that it holds an agent without its run
STORED = "stored_run"  # the name by which Hydra finds the configuration of a run that is resumed or repeated


@contextmanager
def claimed(directory: Path) -> Iterator[None]:
    """The directory for this process alone, where the system can tell. Errors: UsageError where another has it."""
    if fcntl is None:
        yield
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise UsageError(f"Another process runs in {directory}: wait for it, or choose another.") from None
    except OSError as error:  # a file system without locks
        log.debug("%s cannot be locked: %s", directory, error)
    try:
        yield
    finally:
        os.close(handle)


def stored_arguments(arguments: list[str]) -> list[str]:
    """`resume=RUN …` and `repeat=RUN …`: the run's own configuration takes conf/'s place, and the rest overrides it.

    `resume=` goes on in the run's directory, `repeat=` begins a new run in a directory of its own. The configuration is
    read as data, checked (config.trust; `trust=[module]` beside it allows more), and handed to Hydra from memory, so
    that nothing in the run's directory is composed before it has been checked.
    Errors: UsageError when RUN is no run's directory, names code that is not trusted, or a group is chosen anew.
    """
    given = {name: value for name, sign, value in (a.partition("=") for a in arguments) if sign}
    verb = "repeat" if "repeat" in given else "resume"
    run = given.get(verb, "")
    if run == "" or (run, verb) == ("null", "resume"):
        if verb in given and not run:
            raise UsageError(f"{verb}= names no run: write {verb}=RUN, the directory of one.")
        if "trust" in given:
            raise UsageError(
                "trust= goes with resume=RUN or repeat=RUN: what this command line names is trusted anyway."
            )
        return arguments
    if {"resume", "repeat"} <= {*given}:
        raise UsageError("resume= continues a run, repeat= begins it anew: leave out one of them.")
    if {"-m", "--multirun"} & {*arguments}:
        does = "continues" if verb == "resume" else "begins"
        raise UsageError(f"{verb}= {does} one run, -m begins many: leave out one of them.")
    directory = run_directory(verb, unquoted(run))
    apart = ("resume", "trust") if verb == "resume" else ("repeat", "trust", "run.dir")
    rest = [a for a in arguments if a.partition("=")[0] not in apart]
    store_run(directory, rest, names("trust", given.get("trust", "")), verb)
    if verb == "resume":
        place = [f"resume={quoted(directory)}", f"hydra.run.dir={quoted(directory)}"]
    else:
        new = unquoted(given.get("run.dir", f"{directory}-again-{datetime.now():%Y%m%d-%H%M%S-%f}"))
        place = [f"run.dir={quoted(new)}", f"hydra.run.dir={quoted(new)}"]
    return [
        "--config-name", STORED, *rest, *place,
        "hydra.output_subdir=null", "hydra/job_logging=none", "hydra/hydra_logging=none",
    ]  # fmt: skip


def unquoted(text: str) -> str:
    """A value without the quotes that Hydra's own values may have."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def store_run(directory: Path, overrides: Sequence[str], trust: Sequence[str], verb: str = "resume") -> None:
    """Store a run's configuration where Hydra finds it, as STORED, for `overrides` to change numbers of it.

    Errors: UsageError where it names code that is not trusted, or an override chooses a part anew.
    """
    groups = {path.name for path in CONF.iterdir() if path.is_dir()}
    for override in overrides:
        if override.partition("=")[0] in groups:
            raise UsageError(
                f"{override}: a {verb.rstrip('e')}ed run keeps its parts; only numbers can be changed beside {verb}=."
            )
    stored = opened_run(directory, trust)
    OmegaConf.set_struct(stored, True)
    ConfigStore.instance().store(STORED, stored)


def quoted(text: Path | str) -> str:
    """A text as a value of Hydra's grammar, whatever letters it has."""
    return "'" + str(text).replace("\\", "\\\\").replace("'", "\\'") + "'"


def placed(cfg: DictConfig, directory: Path) -> DictConfig:
    """`cfg` with the run's own directory, and whole paths of what it reads, so that a resume finds it from anywhere."""
    cfg.run.dir = str(directory)
    for name in ("replay.path", "init_from", "teacher", "env.model", "env.prompts", "env.test_prompts"):
        path = OmegaConf.select(cfg, name, throw_on_missing=False)
        if isinstance(path, str) and Path(path).exists():
            OmegaConf.update(cfg, name, str(Path(path).resolve()))
    return cfg


def stored_text(cfg: DictConfig) -> str:
    """What a run writes to config.yaml: its options as they were composed. Those that refer to each other still do, so
    that a number changed beside `resume=` reaches every part that uses it; what else was interpolated is a value."""
    return OmegaConf.to_yaml(values_of_others(OmegaConf.merge(cfg, {"resume": None})))


def values_of_others(cfg: Any) -> Any:
    """`cfg` with a value in the place of whatever is interpolated from elsewhere: Hydra's choices, the time of day."""
    for key in list(cfg) if OmegaConf.is_dict(cfg) else range(len(cfg)):
        node = cfg._get_node(key)
        if OmegaConf.is_interpolation(cfg, key):
            if INTERPOLATION.search(str(node._value())):
                cfg[key] = OmegaConf.select(cfg, str(key), throw_on_resolution_failure=False)
        elif OmegaConf.is_config(node) and not (node._is_none() or node._is_missing()):
            values_of_others(node)
    return cfg


def keep(cfg: DictConfig, saved: DictConfig) -> None:
    """Refuse what a resumed run cannot change: its checkpoint holds what was made with it. Errors: UsageError."""
    for name in FIXED:
        before, now = (
            OmegaConf.to_container(x, resolve=True) if OmegaConf.is_config(x) else x
            for x in (OmegaConf.select(saved, name), OmegaConf.select(cfg, name))
        )
        if before != now:
            raise UsageError(f"{name} cannot change in a resumed run: leave it as it was, or begin a new run.")


def resumed(cfg: DictConfig, directory: Path) -> "Snapshot":
    """The checkpoint that a run goes on from. Errors: UsageError where `cfg` changes what cannot change, or asks for
    fewer steps than are done."""
    from dqn.tracking.checkpoint import Checkpoints

    saved = placed(run_config(directory), directory)
    keep(cfg, saved)
    if is_agent_alone(directory):
        raise UsageError(
            f"{directory} holds an agent without its replay memory, which cannot be resumed: begin a new run with its "
            f"weights, init_from={directory}, or resume the run that it is of."
        )
    snapshot = Checkpoints(directory / "checkpoints").load()
    if cfg.steps != saved.steps and cfg.steps < (done := snapshot.counters["env_steps"]):
        raise UsageError(f"steps={cfg.steps} are fewer than the {done:,} of this run: set as many or more.")
    return snapshot


def is_agent_alone(directory: Path) -> bool:
    """Whether a directory holds an agent that `Agent.save` wrote, and no run."""
    from dqn.tracking.checkpoint import Checkpoints

    with suppress(UsageError):
        return ALONE in Checkpoints(directory / "checkpoints").load(weights_only=True).counters
    return False


def again(cfg: DictConfig, directory: Path) -> dict[str, Any] | None:
    """A job of a sweep that is run again in its directory: its result where it is finished, else it goes on where it
    stood.

    Errors: UsageError where the directory holds another job.
    """
    saved = directory / "config.yaml"
    if not saved.is_file():
        return None
    if _plain(cfg) != _plain(run_config(directory)):
        raise UsageError(f"{directory} holds a job with other settings: choose another hydra.sweep.dir.")
    path = directory / "result.json"
    result = json.loads(path.read_text()) if path.is_file() else {}
    if result.get("evaluation") is not None or (result and not cfg.tracking.final_episodes):
        return result
    if [*directory.glob("checkpoints/*.json")]:
        cfg.resume = str(directory)
    else:
        saved.unlink()
    return None


def _plain(cfg: DictConfig) -> Any:
    """All options but those that name the time of day."""
    return OmegaConf.to_container(OmegaConf.merge(cfg, {"run": None, "resume": None}), resolve=True)
