"""Train an agent: python -m dqn.train [group=choice] [option=value]."""

import json
import logging
import os
import platform
import signal
import sys
from pathlib import Path
from shlex import quote
from time import perf_counter
from types import FrameType
from typing import Any

import gymnasium
import hydra
import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from dqn import __version__, build
from dqn.again import again, claimed, placed, resume_arguments, resumed
from dqn.cli import CONF, front_door, option_names
from dqn.tracking.checkpoint import write_text
from dqn.tracking.logger import start_text_log
from dqn.tracking.seeding import parameter_hash
from dqn.trainer import Trainer
from dqn.tuned import by_id, directory_word
from dqn.types import RunError, UsageError

log = logging.getLogger("dqn")
OmegaConf.register_new_resolver("directory_word", directory_word, replace=True)


def stop_on_signals(trainer: Trainer) -> list[int]:
    """The first Ctrl-C or SIGTERM lets the run end with a checkpoint, a second one ends it at once."""
    caught: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if caught:
            os._exit(128 + number)
        caught.append(number)
        if trainer.complete:
            log.info("All steps are done: python -m dqn.evaluate run=%s evaluates them.", trainer.directory)
            sys.exit(128 + number)
        trainer.stop = True
        log.info("Stopping with a checkpoint; once more to stop at once.")

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)
    return caught


def train(cfg: DictConfig, directory: Path) -> dict[str, Any]:
    """One run from the configuration to `result.json`; `cfg.resume` continues the run that lies in `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    with claimed(directory):
        return _train(cfg, directory)


def _train(cfg: DictConfig, directory: Path) -> dict[str, Any]:
    started = perf_counter()
    if cfg.resume is None and [*(directory / "checkpoints").glob("*.json")]:
        raise UsageError(
            f"{directory} already holds a run: continue it with resume={directory}, or choose another run.dir."
        )
    start_text_log(directory / "train.log")
    snapshot = resumed(cfg, directory) if cfg.resume is not None else None
    run = build.run(cfg, directory, snapshot and snapshot.counters["env_steps"] + 1)
    trainer = run.trainer
    trainer.meter.started = started
    log.info("%s", run.card)
    for sentence in run.doubts:
        log.warning("%s", sentence)
    if snapshot is not None:
        log.info("Resuming from %s", directory)
        try:
            for line in trainer.restore(snapshot):
                log.info("  restored %s", line)
        except (KeyError, RuntimeError) as error:
            log.debug("What did not fit", exc_info=True)
            raise UsageError(
                f"The checkpoint in {directory} does not fit this configuration: leave what makes the network and the "
                "memory as it was, or begin a new run."
            ) from error
    plain = OmegaConf.to_yaml(OmegaConf.merge(cfg, {"resume": None}))
    write_text(directory / "config.yaml", plain)  # once everything has proved to fit: a resume needs it as it was
    if trainer.env_steps < cfg.steps:
        (directory / "result.json").unlink(missing_ok=True)  # of fewer steps
    trainer.logger.text("config", f"```yaml\n{plain}```")
    caught = stop_on_signals(trainer)
    try:
        trainer.run()
        if caught:
            log.info(
                "Stopped at %s steps. Continue with: python -m dqn.train resume=%s",
                f"{trainer.env_steps:,}",
                quote(str(directory)),
            )
            sys.exit(128 + caught[0])
        result = finish(cfg, run)
    except RunError as error:
        log.debug("The run ended here", exc_info=True)
        raise RunError(f"{error} (traceback in {directory / 'train.log'})") from error
    finally:
        run.close()
    return result


def finish(cfg: DictConfig, run: build.Run) -> dict[str, Any]:
    """The closing evaluation, `result.json`, and the lines that say what was reached and what to type next."""
    trainer = run.trainer
    seconds = trainer.meter.elapsed
    evaluation = trainer.write_evaluation(cfg.tracking.final_episodes)
    result = {
        "evaluation": evaluation,
        "env_steps": trainer.env_steps,
        "updates": trainer.updates,
        "seconds": seconds,
        "seconds_by_stage": {k: round(v, 4) for k, v in trainer.meter.seconds.items()},
        "parameter_hash": parameter_hash(trainer.learner.online.state_dict()),
        "device": str(run.device),
        "engine": run.engine,
        "versions": {
            "dqn": __version__, "python": platform.python_version(), "torch": torch.__version__,
            "gymnasium": gymnasium.__version__, "numpy": np.__version__,
        },
    }  # fmt: skip
    directory = trainer.directory
    write_text(directory / "result.json", json.dumps(result, indent=1))
    options = {n: OmegaConf.select(cfg, n) for n in option_names(cfg) if not n.startswith(("run", "resume"))}
    flat = {n: v for n, v in options.items() if not OmegaConf.is_dict(v)}
    trainer.logger.hparams(flat, {"evaluation/return": evaluation["mean"]})
    known = evaluation.get("known_q")
    if known:
        log.info(
            "|Q − Q*| over all states and actions: max %.4f, mean %.4f (range of Q* %.4f)",
            known["max_error"], known["mean_error"], known["range"],
        )  # fmt: skip
    log.info(
        "Greedy evaluation over %d episodes: %.2f ± %.2f  (%s steps, %s updates, %.1f s)",
        evaluation["episodes"], evaluation["mean"], evaluation["std"], f"{trainer.env_steps:,}",
        f"{trainer.updates:,}", seconds,
    )  # fmt: skip
    log.info("Results are in %s", directory.resolve())
    shown = quote(str(directory))
    log.info("  evaluate:  python -m dqn.evaluate run=%s episodes=100", shown)
    log.info("  curves:    tensorboard --logdir %s", shown)
    return result


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def _job(cfg: DictConfig) -> float:
    """One run; what a sweeper that searches is told is the closing evaluation's mean return."""
    hydra_cfg, cfg = HydraConfig.get(), placed(by_id(cfg))
    directory = Path(hydra_cfg.runtime.output_dir)
    if hydra_cfg.mode is not RunMode.MULTIRUN:
        result = front_door(lambda: train(cfg, directory))  # or Hydra would say more than a sentence
    else:
        result = again(cfg, directory) or train(cfg, directory)
    return result["evaluation"]["mean"]


def main() -> None:
    def job() -> None:
        sys.argv[1:] = resume_arguments(sys.argv[1:])
        _job()

    front_door(job)


if __name__ == "__main__":
    main()
