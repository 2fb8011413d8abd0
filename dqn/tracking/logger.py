"""The log: event files for TensorBoard, a text file, the terminal; a small fixed set of tags."""

import contextlib
import ctypes
import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import tqdm

from dqn.tracking.checkpoint import write_text

log = logging.getLogger("dqn")

TAGS = (
    "episode/return", "episode/length", "evaluation/return", "evaluation/std", "evaluation/length", "learner/loss",
    "learner/td_error", "learner/q_mean", "learner/q_max", "learner/grad_norm", "learner/lr",
    "speed/env_steps_per_s", "speed/updates_per_s", "replay/fill", "process/memory_gb", "qstar/max_error",
    "qstar/mean_error",
)  # fmt: skip
LINE_EVERY = 10.0  # seconds between two lines of an evaluation
NAMED = ("exploration/", "info/", "evaluation/info/")  # tags whose last word a part or an option names
STAGES = ("env", "act", "wait", "store", "update", "sync", "log", "evaluate", "checkpoint")


class Terminal(logging.StreamHandler):
    """Plain lines, above the progress bar where there is one; letters that the stream does not have are replaced."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            encoding = getattr(self.stream, "encoding", None) or "utf-8"
            text = self.format(record).encode(encoding, "replace").decode(encoding)
            with tqdm.tqdm.external_write_mode(file=self.stream):
                self.stream.write(text + self.terminator)
                self.flush()
        except (OSError, ValueError):  # a stream that was closed
            self.handleError(record)


class LogFile(logging.FileHandler):
    """The run's own text log. Where it cannot be written (a full disk) the run goes on, and that is said once."""

    failed = False

    def handleError(self, record: logging.LogRecord) -> None:
        if not self.failed:
            self.failed = True
            print(f"{self.baseFilename} cannot be written: {sys.exc_info()[1]}", file=sys.stderr)


def start_text_log(path: Path | None, level: int = logging.INFO) -> None:
    """Messages from `level` on go to stdout as plain lines; all of them go, with the time, to the run's own file."""
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
    log.setLevel(logging.DEBUG)
    log.propagate = False
    plain = Terminal(sys.stdout)
    plain.setLevel(level)
    plain.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(plain)
    if path is not None:
        if path.is_symlink():  # whoever made the directory may have put it there to have another file written
            path.unlink()
        file = LogFile(path, encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(file)


@contextlib.contextmanager
def text_log(path: Path | None, level: int = logging.INFO) -> Iterator[None]:
    """`start_text_log` while the block runs; afterwards the log is as the program had it before."""
    usual, usual_level, propagate = list(log.handlers), log.level, log.propagate
    for handler in usual:  # start_text_log closes what it finds
        log.removeHandler(handler)
    try:
        start_text_log(path, level)
        yield
    finally:
        for handler in list(log.handlers):
            log.removeHandler(handler)
            handler.close()
        for handler in usual:
            log.addHandler(handler)
        log.setLevel(usual_level)
        log.propagate = propagate


def trim_memory() -> None:
    """Give freed memory back to the system where the C library can: glibc's heap else grows by fragments for ever
    when tensors of some 100 kB come and go (seen: 1 GB in 100,000 steps)."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


class Table:
    """The logged numbers as lines of JSON in the run's directory, so that any program can read them: each line is a
    dict with `env_steps`. A resume keeps the lines before `purge_step`; a new run begins with none."""

    FILE = "progress.jsonl"

    def __init__(self, directory: Path, purge_step: int | None):
        kept = [row for row in read_table(directory) if row["env_steps"] < purge_step] if purge_step else []
        path = directory / self.FILE
        write_text(path, "".join(json.dumps(row) + "\n" for row in kept))  # a new file: no link is followed
        self.file = path.open("a", encoding="utf-8")

    def write(self, values: dict[str, float], env_steps: int) -> None:
        numbers = {tag: float(value) for tag, value in values.items()}
        self.file.write(json.dumps({"env_steps": env_steps, **numbers}) + "\n")
        self.file.flush()

    def close(self) -> None:
        self.file.close()


def read_table(directory: Path) -> list[dict[str, Any]]:
    """The logged numbers of a run, a dict for each number of env_steps; what is damaged is left out."""
    rows: dict[int, dict[str, Any]] = {}
    path = directory / Table.FILE
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []:
        # a line that a killed process left unfinished, or none of ours
        with contextlib.suppress(ValueError, KeyError, TypeError, OverflowError, RecursionError):
            row = json.loads(line)
            rows.setdefault(int(row["env_steps"]), {}).update(row)
    return [rows[env_steps] for env_steps in sorted(rows)]


class Logger:
    """Scalars by tag and env_steps into event files of the run's directory and into its table; with `purge_step` a
    resume starts clean.

    Only TAGS, time/<stage>, exploration/<its name> and what tracking.info names are accepted: a new tag is a decision,
    not an accident. Where the files cannot be written the run goes on without them, and that is said once.
    """

    def __init__(self, directory: Path, purge_step: int | None = None):
        from torch.utils.tensorboard.writer import SummaryWriter  # a second of import

        self.directory, self.failed = directory, False
        self.writer = SummaryWriter(str(directory), purge_step=purge_step, flush_secs=10)
        self.table = Table(directory, purge_step)
        self.allowed = {*TAGS, *(f"time/{stage}" for stage in STAGES)}

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self.failed:
                self.failed = True
                log.warning("The event file in %s cannot be written (%s): the run goes on without it.",
                            self.directory, error.strerror or error)  # fmt: skip

    def scalars(self, values: dict[str, float], env_steps: int) -> None:
        for tag in values:
            if tag not in self.allowed and not tag.startswith(NAMED):
                raise KeyError(f"{tag!r} is not one of the project's tags; add it to tracking.logger.TAGS")
        with self._writing():
            for tag, value in values.items():
                self.writer.add_scalar(tag, value, env_steps)
            self.table.write(values, env_steps)

    def gif(self, tag: str, gif: bytes, shape: tuple[int, int], env_steps: int) -> None:
        """A GIF of height and width `shape`, which TensorBoard plays among its images."""
        from tensorboard.compat.proto import summary_pb2

        Summary: Any = summary_pb2.Summary  # pyright: ignore[reportAttributeAccessIssue]  # which protobuf makes

        height, width = shape
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=gif)
        with self._writing():
            summary = Summary(value=[Summary.Value(tag=tag, image=image)])
            self.writer._get_file_writer().add_summary(summary, env_steps)

    def text(self, tag: str, text: str) -> None:
        with self._writing():
            self.writer.add_text(tag, text, 0)

    def hparams(self, values: dict[str, Any], metrics: dict[str, float]) -> None:
        """The run's options and final numbers for TensorBoard's HParams page, in the run's own directory."""
        from torch.utils.tensorboard.summary import hparams

        plain = {k: v if isinstance(v, (bool, int, float, str)) else str(v) for k, v in values.items() if v is not None}
        with self._writing():
            for summary in hparams(plain, metrics):
                self.writer._get_file_writer().add_summary(summary)

    def flush(self) -> None:
        with self._writing():
            self.writer.flush()

    def close(self) -> None:
        with self._writing():
            self.writer.close()
        with self._writing():
            self.table.close()


class Progress:
    """A bar on a terminal (stderr), a plain line every tenth of the way elsewhere; not `shown`, neither."""

    def __init__(self, total: int, done: int = 0, shown: bool = True):
        self.shown = shown
        self.bar = tqdm.tqdm(
            total=total,
            initial=done,
            unit="step",
            unit_scale=True,
            dynamic_ncols=True,
            disable=not (shown and sys.stderr.isatty()),
        )
        self.total, self.tenth, self.shown_at = total, done * 10 // total, 0.0

    def update(self, env_steps: int, last_returns: Callable[[], Sequence[float]]) -> None:
        """Show where the run is and the mean of the last episodes' returns, ten times a second at most."""
        if not self.shown or (perf_counter() - self.shown_at < 0.1 and env_steps < self.total):
            return
        self.shown_at = perf_counter()
        returns = last_returns()
        mean = f"{sum(returns) / len(returns):.1f}" if returns else "-"
        if not self.bar.disable:
            self.bar.set_postfix_str(f"return {mean}", refresh=False)
            self.bar.update(env_steps - self.bar.n)
        elif env_steps * 10 // self.total > self.tenth:
            self.tenth = env_steps * 10 // self.total
            said = f"mean return of the last {len(returns)} episodes {mean}" if returns else "no episode has ended yet"
            log.info("%s steps, %s", f"{env_steps:,}", said)

    def close(self) -> None:
        self.bar.close()


class EvaluationProgress:
    """How far an evaluation is, where it takes longer than a moment: a bar on a terminal, lines elsewhere; not `shown`,
    neither."""

    def __init__(self, episodes: int, shown: bool = True):
        self.shown = shown
        self.episodes, self.begun, self.shown_at = episodes, perf_counter(), perf_counter()
        self.bar: Any = None

    def __enter__(self) -> "EvaluationProgress":
        return self

    def __call__(self, played: int, decisions: int) -> None:
        """So many episodes are played, and so many decisions taken."""
        now = perf_counter()
        if not self.shown:
            return
        if sys.stderr.isatty():
            if self.bar is None and now - self.begun > 0.5:
                self.bar = tqdm.tqdm(
                    total=self.episodes, desc="evaluating", unit="episode", leave=False, dynamic_ncols=True
                )
            if self.bar is not None and now - self.shown_at > 0.1:
                self.shown_at = now
                self.bar.set_postfix_str(f"{decisions:,} decisions", refresh=False)
                self.bar.update(played - self.bar.n)
        elif now - self.shown_at > LINE_EVERY:
            self.shown_at = now
            log.info("Evaluating: %d of %d episodes, %s decisions", played, self.episodes, f"{decisions:,}")

    def __exit__(self, *raised: object) -> None:
        if self.bar is not None:
            self.bar.close()
