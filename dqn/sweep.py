"""Many runs by one command (-m): how their directories are called, what each says, and the table at the end."""

import logging
import os
import re
import sys
from math import nan, prod
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import OverrideParseException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from dqn.config.cli import explain, say

log = logging.getLogger("dqn")
JOBS = "DQN_SWEEP_JOBS"  # how many there are, for each job to say
LONGEST = 100  # letters of a directory's name


def directory_name(number: int, overrides: str) -> str:
    """`2-gamma=0.9,seed=1` for the third job of a sweep over gamma and seed."""
    words = re.sub(r"[^\w=.,+-]", "_", overrides)[:LONGEST].rstrip(",.")
    return f"{number}-{words}" if words else str(number)


OmegaConf.register_new_resolver("directory_name", directory_name, replace=True)


def sweep_arguments(arguments: list[str]) -> list[str]:
    """The arguments of a sweep, with its directory where `run.dir=` says so, and the names of what it varies.

    Without -m they stay as they are.
    """
    if not {"-m", "--multirun"} & {*arguments}:
        return arguments
    given, flags = [a for a in arguments if not a.startswith("-")], [a for a in arguments if a.startswith("-")]
    given = [re.sub(r"^run\.dir=", "hydra.sweep.dir=", argument) for argument in given]
    try:
        parsed = OverridesParser.create().parse_overrides(given)
    except OverrideParseException:  # Hydra says what is wrong
        return [*flags, *given]
    varied = [override for override in parsed if override.is_sweep_override()]
    fixed = {override.key_or_group for override in parsed} - {override.key_or_group for override in varied}
    jobs = prod(_values(override) for override in varied)
    return [
        *flags, *given,
        f"hydra.job.config.override_dirname.exclude_keys=[{','.join(sorted(fixed))}]",
        f"+hydra.job.env_set={{{JOBS}:'{jobs}'}}",
    ]  # fmt: skip


def _values(override: Override) -> int:
    return sum(1 for _ in override.sweep_string_iterator())


def one_of_many(cfg: DictConfig, directory: Path) -> float:
    """One job of a sweep: it is left alone where it is finished, and goes on where it stood."""
    from hydra.core.hydra_config import HydraConfig

    from dqn.config.resume import again
    from dqn.run import Host, score, train

    hydra_cfg = HydraConfig.get()
    name = f"Job {hydra_cfg.job.num + 1} of {os.environ.get(JOBS, '?')}"
    say(f"\n{name}: {' '.join(hydra_cfg.overrides.task)}")
    result = again(cfg, directory)
    if result is not None:
        say(f"{directory} is finished.")
        return score(result)
    return score(train(cfg, directory, Host(hydra_cfg.overrides.task, brief=True)))


class SweepTable(Callback):
    """Ends a Hydra multirun with the table of its jobs. One that fails leaves `error.txt` in its directory and does not
    stop the others; the sweep then ends with exit code 1."""

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        directory = Path(str(job_return.hydra_cfg.hydra.runtime.output_dir))  # pyright: ignore[reportOptionalMemberAccess]
        if config.hydra.mode is not RunMode.MULTIRUN:
            return
        (directory / "error.txt").unlink(missing_ok=True)
        if job_return.status is JobStatus.FAILED:
            error = job_return._return_value
            directory.mkdir(parents=True, exist_ok=True)
            said = explain(error) if isinstance(error, BaseException) else str(error)
            (directory / "error.txt").write_text(said)
            say(f"error: {said}", sys.stderr)
            job_return.status, job_return.return_value = JobStatus.COMPLETED, nan

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        from dqn.report import table

        directory = Path(config.hydra.sweep.dir)
        say(f"\n{table(sorted(directory.iterdir()))}\nRuns are in {directory.resolve()}")
        say(f"  curves:  tensorboard --logdir {directory}")
        failed = sorted(directory.glob("*/error.txt"))
        for path in failed:
            say(f"error: job {path.parent.name}: {path.read_text()}", sys.stderr)
        if failed:
            sys.exit(1)
