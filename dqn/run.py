"""One run from its configuration to `result.json`: wired, trained, evaluated, and stopped by a signal."""

import json
import logging
import os
import platform
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import nan
from pathlib import Path
from shlex import quote
from time import perf_counter
from types import FrameType
from typing import Any, cast

import gymnasium
import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from dqn import __version__
from dqn.agent import INTERFACE
from dqn.config import build
from dqn.config.cli import plain_options
from dqn.config.compatible import unread
from dqn.config.resume import claimed, resumed, stored_text
from dqn.config.summary import identity
from dqn.config.trust import modules_to_trust
from dqn.envs.passed import FROM_PYTHON
from dqn.errors import RunError, UsageError
from dqn.processes import SIGNALS, kill_children
from dqn.resources import machine
from dqn.seeding import parameter_hash
from dqn.tracking.checkpoint import write_text
from dqn.tracking.logger import text_log
from dqn.trainer import Callback, Trainer

log = logging.getLogger("dqn")


class Stopped(SystemExit):
    """A signal has stopped the run, with a checkpoint. It ends a process as a shell expects: with 128 + its number."""

    def __init__(self, number: int):
        super().__init__(128 + number)
        self.number = number


@contextmanager
def stop_on_signals(trainer: Trainer, guest: bool = False) -> Iterator[list[int]]:
    """The first Ctrl-C, SIGTERM or SIGHUP lets the run end with a checkpoint. A second one ends the process at once,
    with every process that it has started; where the run is the `guest` of another program, it does what it did before
    the run. Yields the signals that came."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # handlers are the main thread's
        yield caught
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if caught and guest:
            restore_handlers()
            signal.raise_signal(number)
            return
        if caught:
            kill_children()  # or one that hangs would be left
            os._exit(128 + number)
        caught.append(number)
        if trainer.complete:
            log.info("All steps are done: python -m dqn.evaluate run=%s evaluates them.", trainer.directory)
            raise Stopped(number)
        trainer.stop = True
        log.info("Stopping with a checkpoint; once more to stop at once.")

    def restore_handlers() -> None:
        for number, handler in usual.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    usual = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in usual.items():
        if handler is not signal.SIG_IGN:  # as nohup has SIGHUP
            signal.signal(number, handle)
    try:
        yield caught
    finally:
        restore_handlers()


@contextmanager
def quiet_threads() -> Iterator[None]:
    """What a thread of a library raises goes to the log: whoever waits for the thread hears of it, too."""
    usual = threading.excepthook
    threading.excepthook = lambda raised: log.debug("A thread ended", exc_info=raised.exc_value)
    try:
        yield
    finally:
        threading.excepthook = usual


@dataclass(frozen=True)
class Host:
    """What a run is told by the program that starts it.

    `given`: the overrides of its command line. `brief`: the terminal shows warnings and the result alone, as where many
    runs follow one another. `callbacks` and `progress`: see trainer.Trainer. `guest`: the process goes on after the
    run, as a notebook's does.
    """

    given: Sequence[str] = ()
    brief: bool = False
    callbacks: Sequence[Callback] = ()
    progress: bool = True
    guest: bool = False
    kept: bool = True  # the directory stays after the run

    def how_to_go_on(self, directory: Path) -> str:
        """The end of the sentence that says that the run was stopped."""
        if not self.kept:
            return ""
        python = f"dqn.train(resume={str(directory)!r})"
        return f" Continue with: {python if self.guest else f'python -m dqn.train resume={quote(str(directory))}'}"


def train(cfg: DictConfig, directory: Path, host: Host) -> dict[str, Any]:
    """One run from the configuration to `result.json`; `cfg.resume` continues the run that lies in `directory`.

    Errors: UsageError, RunError, and Stopped where a signal has stopped it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    level = logging.WARNING if host.brief else logging.INFO
    with claimed(directory), quiet_threads(), text_log(directory / "train.log", level):
        return _train(cfg, directory, host)


def _train(cfg: DictConfig, directory: Path, host: Host) -> dict[str, Any]:
    started = perf_counter()
    if cfg.resume is None and [*(directory / "checkpoints").glob("*.json")]:
        raise UsageError(
            f"{directory} already holds a run: continue it with resume={directory}, or choose another run.dir."
        )
    snapshot = resumed(cfg, directory) if cfg.resume is not None else None
    # TensorBoard forgets what an earlier process logged after this step, and repeats nothing.
    purge_step = snapshot.counters["env_steps"] + 1 if snapshot else 0
    run = build.run(cfg, directory, purge_step, host.callbacks, host.progress)
    trainer = run.trainer
    trainer.meter.started = started
    log.info("%s", run.summary)
    for sentence in [*run.warnings, *unread(cfg, host.given)]:
        log.warning("%s", sentence)
    if snapshot is not None:
        log.info("Resuming from %s", directory)
        restore(trainer, snapshot, directory)
    text = stored_text(cfg)
    write_text(directory / "config.yaml", text)  # once everything has proved to fit: a resume needs it as it was
    interface = getattr(trainer.collector.envs, "interface", None)
    if interface is not None:
        write_text(directory / INTERFACE, json.dumps(interface.plain()))
    if trainer.env_steps < cfg.steps:
        (directory / "result.json").unlink(missing_ok=True)  # of fewer steps
    if snapshot is None:
        write_hydra_folder(directory, text, host.given)
        trainer.logger.text("config", f"```yaml\n{text}```")
    try:
        with stop_on_signals(trainer, host.guest) as caught:
            trainer.run()
            if caught:
                log.info("Stopped at %s steps.%s", f"{trainer.env_steps:,}", host.how_to_go_on(directory))
                raise Stopped(caught[0])
            return finish(cfg, run, host.kept)
    except RunError as error:
        log.debug("The run ended here", exc_info=True)
        if not host.kept:
            raise
        raise RunError(f"{error} (traceback in {directory / 'train.log'})") from error
    finally:
        run.close()


def write_hydra_folder(directory: Path, config: str, given: Sequence[str]) -> None:
    """What Hydra's users look for in .hydra: the options that were typed, what they were composed to, and Hydra's own.

    It is there to be read; a resume reads config.yaml beside it.
    """
    (directory / ".hydra").mkdir(exist_ok=True)
    write_text(directory / ".hydra" / "overrides.yaml", OmegaConf.to_yaml(list(given)))
    write_text(directory / ".hydra" / "config.yaml", config)
    if HydraConfig.initialized():  # dqn.train composes without it
        own = OmegaConf.create({"hydra": cast(Any, HydraConfig.instance().cfg).hydra})
        write_text(directory / ".hydra" / "hydra.yaml", OmegaConf.to_yaml(own))


def restore(trainer: Trainer, snapshot: Any, directory: Path) -> None:
    """Continue from a checkpoint. Errors: UsageError where it does not fit the configuration."""
    try:
        for line in trainer.restore(snapshot):
            log.info("  restored %s", line)
    except (UsageError, RunError):
        raise
    except Exception as error:  # numbers of other shapes, or none at all: what lies in a file may be anything
        log.debug("What did not fit", exc_info=True)
        raise UsageError(
            f"The checkpoint in {directory} does not fit this configuration: leave what makes the network and the "
            "memory as it was, or begin a new run."
        ) from error


def finish(cfg: DictConfig, run: build.Run, kept: bool) -> dict[str, Any]:
    """`result.json`, the closing evaluation, and the lines that say what was reached and, where the directory is kept,
    what to type next."""
    trainer, directory = run.trainer, run.trainer.directory
    recent = trainer.meter.recent
    result = {
        **identity(cfg, run.env_id, trainer.learner.online.torso),
        "task_name": cfg.task_name,
        "tags": list(cfg.tags),
        "evaluation": None,
        "training": {"return": float(np.mean(recent)) if recent else None, "episodes": len(recent)},
        "env_steps": trainer.env_steps,
        "updates": trainer.updates,
        "seconds": trainer.meter.elapsed,
        "seconds_by_stage": {k: round(v, 4) for k, v in trainer.meter.seconds.items()},
        "parameter_hash": parameter_hash(trainer.learner.online.state_dict()),
        "device": str(run.device),
        "engine": trainer.engine.why,
        "machine": machine() | ({"gpu": torch.cuda.get_device_name(run.device)} if run.device.type == "cuda" else {}),
        "versions": {
            "dqn": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "gymnasium": gymnasium.__version__,
            "numpy": np.__version__,
        },
    }
    repeated = (directory / "result.json").is_file()  # of these very steps: its evaluation has been logged
    write_text(directory / "result.json", json.dumps(result, indent=1))  # what is known, before what may fail
    if cfg.tracking.final_episodes and not trainer.stop:
        evaluation = trainer.close_evaluation(cfg.tracking.final_episodes, logged=not repeated)
        result["evaluation"] = evaluation
        write_text(directory / "result.json", json.dumps(result, indent=1))
        say_evaluation(evaluation, trainer, result["seconds"])
    names = identity(cfg, run.env_id, trainer.learner.online.torso, flat=True)
    trainer.logger.hparams(
        {**names, **plain_options(cfg), **names},  # the names come first, and say what was made
        {"evaluation/return": score(result)},
    )
    if not kept:
        return result
    log.info("Results are in %s", directory.resolve())
    shown = quote(str(directory))
    log.info("  evaluate:  %s", evaluate_command(cfg, directory))
    log.info("  curves:    tensorboard --logdir %s", shown)
    return result


def evaluate_command(cfg: DictConfig, directory: Path) -> str:
    """What evaluates the run: a command, or, where its environment cannot be found by a name, a line of Python."""
    if str(cfg.env.get("id") or "").startswith(FROM_PYTHON):
        return f"dqn.load({str(directory)!r}, env=…).evaluate(100)"
    modules = modules_to_trust(cfg, directory / "config.yaml")
    trust = f" {quote('trust=[' + ','.join(modules) + ']')}" if modules else ""
    return f"python -m dqn.evaluate run={quote(str(directory))} episodes=100{trust}"


def say_evaluation(evaluation: dict[str, Any], trainer: Trainer, seconds: float) -> None:
    """The closing evaluation in words."""
    known = evaluation.get("known_q")
    if known:
        log.info(
            "|Q − Q*| over all states and actions: max %.4f, mean %.4f (range of Q* %.4f)",
            known["max_error"],
            known["mean_error"],
            known["range"],
        )
    log.info(
        "Greedy evaluation over %d episodes: %.2f ± %.2f  (%s steps, %s updates, %.1f s)",
        evaluation["episodes"],
        evaluation["mean"],
        evaluation["std"],
        f"{trainer.env_steps:,}",
        f"{trainer.updates:,}",
        seconds,
    )


def score(result: dict[str, Any]) -> float:
    """The closing evaluation's mean return, or what stands for it where there was none: that of the last episodes."""
    evaluation = result["evaluation"]
    if evaluation is not None:
        return evaluation["mean"]
    trained = result["training"]["return"]
    return nan if trained is None else trained
