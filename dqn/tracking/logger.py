"""The log: event files for TensorBoard, a text file, the terminal; a small fixed set of tags."""

import contextlib
import ctypes
import logging
import os
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import tqdm

log = logging.getLogger("dqn")

TAGS = (
    "episode/return", "episode/length", "evaluation/return", "learner/loss", "learner/td_error", "learner/q_mean",
    "learner/q_max", "learner/grad_norm", "learner/lr",
    "speed/env_steps_per_s", "speed/updates_per_s", "replay/fill", "process/memory_gb", "qstar/max_error",
    "qstar/mean_error",
)  # fmt: skip
STAGES = ("env", "act", "wait", "store", "update", "sync", "log", "evaluate", "checkpoint")


def start_text_log(path: Path | None) -> None:
    """Messages go to stdout as plain lines and, with the time and what is for debugging only, to the run's own file."""
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
    log.setLevel(logging.DEBUG)
    log.propagate = False
    plain = logging.StreamHandler(sys.stdout)
    plain.setLevel(logging.INFO)
    plain.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(plain)
    if path is not None:
        if path.is_symlink():  # whoever made the directory may have put it there to have another file written
            path.unlink()
        file = logging.FileHandler(path)
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(file)


def memory_gb() -> float:
    """Resident memory of this process, in GiB (its peak where the system does not tell the present)."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**30
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**30 if sys.platform == "darwin" else 2**20)


def trim_memory() -> None:
    """Give freed memory back to the system where the C library can: glibc's heap else grows by fragments for ever
    when tensors of some 100 kB come and go (seen: 1 GB in 100,000 steps)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class Logger:
    """Scalars by tag and env_steps into event files of the run's directory; with `purge_step` a resume starts clean.

    Only TAGS, time/<stage> and exploration/<its name> are accepted: a new tag is a decision, not an accident.
    """

    def __init__(self, directory: Path, purge_step: int | None = None):
        from torch.utils.tensorboard.writer import SummaryWriter  # a second of import

        self.writer = SummaryWriter(str(directory), purge_step=purge_step, flush_secs=10)
        self.allowed = {*TAGS, *(f"time/{stage}" for stage in STAGES)}

    def scalars(self, values: dict[str, float], env_steps: int) -> None:
        for tag, value in values.items():
            if tag not in self.allowed and not tag.startswith("exploration/"):
                raise KeyError(f"{tag!r} is not one of the project's tags; add it to tracking.logger.TAGS")
            self.writer.add_scalar(tag, value, env_steps)

    def text(self, tag: str, text: str) -> None:
        self.writer.add_text(tag, text, 0)

    def hparams(self, values: dict[str, Any], metrics: dict[str, float]) -> None:
        """The run's options and final numbers for TensorBoard's HParams page, in the run's own directory."""
        from torch.utils.tensorboard.summary import hparams

        plain = {k: v if isinstance(v, (bool, int, float, str)) else str(v) for k, v in values.items() if v is not None}
        for summary in hparams(plain, metrics):
            self.writer._get_file_writer().add_summary(summary)

    def flush(self) -> None:
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class Progress:
    """A bar on a terminal (stderr), a plain line every tenth of the way elsewhere."""

    def __init__(self, total: int, done: int = 0):
        self.bar = tqdm.tqdm(
            total=total,
            initial=done,
            unit="step",
            unit_scale=True,
            dynamic_ncols=True,
            disable=not sys.stderr.isatty(),
        )
        self.total, self.tenth, self.shown_at = total, done * 10 // total, 0.0

    def update(self, env_steps: int, returns: Sequence[float]) -> None:
        """Show where the run is and the mean of the last episodes' returns, ten times a second at most."""
        if perf_counter() - self.shown_at < 0.1 and env_steps < self.total:
            return
        self.shown_at = perf_counter()
        mean = f"{sum(returns) / len(returns):.1f}" if returns else "-"
        if not self.bar.disable:
            self.bar.set_postfix_str(f"return {mean}", refresh=False)
            self.bar.update(env_steps - self.bar.n)
        elif env_steps * 10 // self.total > self.tenth:
            self.tenth = env_steps * 10 // self.total
            log.info("%s steps, mean return of the last %d episodes %s", f"{env_steps:,}", len(returns), mean)

    def close(self) -> None:
        self.bar.close()
