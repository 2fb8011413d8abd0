"""What lies in a run's directory already: a resume, and a sweep that is run once more."""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

from dqn.cli import CONF, run_directory
from dqn.tracking.logger import start_text_log
from dqn.types import UsageError

log = logging.getLogger("dqn")


@contextmanager
def claimed(directory: Path) -> Iterator[None]:
    """The directory for this process alone, where the system can tell. Errors: UsageError where another has it."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        if fcntl is not None:
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


def resume_arguments(arguments: list[str]) -> list[str]:
    """`resume=RUN …`: the run's own composed configuration takes the place of conf/, the rest overrides it.

    Errors: UsageError when RUN is no run's directory or a group is chosen anew.
    """
    run = next((a.partition("=")[2] for a in arguments if a.startswith("resume=")), "")
    if run in ("", "null"):
        if "resume=" in arguments:
            raise UsageError("resume= names no run: write resume=RUN, the directory of one.")
        return arguments
    if run[0] == run[-1] and run[0] in "'\"":  # as Hydra's own values may be
        run = run[1:-1]
    directory = run_directory("resume", run)
    groups = {path.name for path in CONF.iterdir() if path.is_dir()}
    for argument in arguments:
        if argument.partition("=")[0] in groups:
            raise UsageError(f"{argument}: a resumed run keeps its parts; only numbers can be changed beside resume=.")
    return [
        "--config-path", str(directory.resolve()), "--config-name", "config",
        *(a if not a.startswith("resume=") else f"resume={_quoted(directory)}" for a in arguments),
        f"hydra.run.dir={_quoted(directory)}", "hydra.output_subdir=null",
        "hydra/job_logging=none", "hydra/hydra_logging=none",
    ]  # fmt: skip


def _quoted(path: Path) -> str:
    """A path as a value of Hydra's grammar, whatever letters it has."""
    return "'" + str(path).replace("\\", "\\\\").replace("'", "\\'") + "'"


def again(cfg: DictConfig, directory: Path) -> dict[str, Any] | None:
    """A sweep that is run again in its directory: the result of a finished job, else the job goes on where it stood.

    Errors: UsageError where the directory holds another job.
    """
    saved = directory / "config.yaml"
    if not saved.is_file():
        return None

    def plain(cfg: Any) -> Any:  # without what names the time of day
        return OmegaConf.to_container(OmegaConf.merge(cfg, {"run": None, "resume": None}), resolve=True)

    if plain(cfg) != plain(OmegaConf.load(saved)):
        raise UsageError(f"{directory} holds a job with other settings: choose another hydra.sweep.dir.")
    if (directory / "result.json").is_file():
        start_text_log(None)
        log.info("%s is finished.", directory)
        return json.loads((directory / "result.json").read_text())
    if [*directory.glob("checkpoints/*.json")]:
        cfg.resume = str(directory)
    else:
        saved.unlink()
    return None
