"""Train an agent: python -m dqn.train [group=choice] [option=value], or dqn.train(…) from Python."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from dqn import __version__
from dqn.config.cli import CONF, check_arguments, front_door, say
from dqn.config.help import help_text
from dqn.config.resume import placed, stored_arguments
from dqn.config.tuned import by_id
from dqn.sweep import sweep_arguments

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from dqn.agent import Agent

# PyTorch takes seconds to import. Nothing above does so: what is wrong with a command is said before, and so is a word.


def job(cfg: "DictConfig") -> float:
    """One run; what a sweeper that searches is told is the closing evaluation's mean return."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra_cfg = HydraConfig.get()
    directory = Path(hydra_cfg.runtime.output_dir)
    cfg = placed(by_id(cfg), directory)
    if hydra_cfg.mode is not RunMode.MULTIRUN:
        from dqn.run import Host, score, train

        # Errors end here with a sentence, because Hydra would say more.
        return score(front_door(lambda: train(cfg, directory, Host(hydra_cfg.overrides.task))))
    from dqn.sweep import one_of_many

    return one_of_many(cfg, directory)


def start(arguments: list[str]) -> None:
    """Hand the command to Hydra, which composes the configuration and calls `job`, once or for every combination."""
    check_arguments(arguments)
    sys.argv[1:] = sweep_arguments(stored_arguments(arguments))
    if not any(argument.startswith("-") for argument in arguments):
        say(f"dqn {__version__}: loading PyTorch …")
    import hydra

    hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)()


class Verb(ModuleType):
    """This module, which is also the function `dqn.train`: one name cannot be two things in Python."""

    def __call__(
        self,
        env: Any = None,
        algorithm: str | None = None,
        steps: int | None = None,
        seed: int | None = None,
        *,
        overrides: Sequence[str] | Mapping[str, Any] = (),
        callbacks: Sequence[Callable[[Any, dict[str, Any]], Any]] = (),
        progress: bool = True,
        directory: str | Path | None = "auto",
        device: str | None = None,
        resume: str | Path | None = None,
        trust: Sequence[str] = (),
        **options: Any,
    ) -> "Agent":
        """Train an agent, as python -m dqn.train does with the same options: equal seeds give equal parameters.

        Args:
            env: the id of a Gymnasium environment, `module:Class`, a choice of conf/env (`cartpole`,
                `tensor_breakout`), a class, a function that makes an environment, or one environment, which is played
                in, evaluated in and not closed. None takes what the command line takes.
            algorithm: a choice of conf/algorithm.
            steps: decisions of all environments together.
            seed: of everything that is drawn.
            overrides: more options, as on the command line, ["optimizer.lr=1e-3"], or as a dict, nested or with dots.
            callbacks: each is called as callback(trainer, numbers) after numbers were logged, an evaluation was played
                or a checkpoint was saved. One that returns True ends the run there, and the closing evaluation follows.
                One that raises ends the run with a checkpoint and its own exception.
            progress: show a bar on a terminal, lines elsewhere. False: warnings alone.
            directory: where the run is written; "auto" is runs/ALGORITHM-ENVIRONMENT-SEED-TIME, None keeps nothing.
            device: auto, cpu, cuda.
            resume: a run's directory, to go on from its newest checkpoint. `env` is then what only this program has,
                a lambda or a class of a notebook.
            trust: modules of one's own that a resumed run names.
            options: options whose names have no dots, gamma=0.98 or replay="prioritized".

        Ctrl-C ends the run with a checkpoint and raises KeyboardInterrupt; a second one raises it at once.
        Errors: UsageError for input that is wrong, RunError where the run cannot go on, with the command line's
        sentences.
        """
        from dqn.api import train as train_agent  # importing torch takes seconds

        return train_agent(
            env, algorithm, steps, seed, overrides=overrides, callbacks=callbacks, progress=progress,
            directory=directory, device=device, resume=resume, trust=trust, **options,
        )  # fmt: skip


def main() -> None:
    arguments = sys.argv[1:]
    if "--version" in arguments:
        say(f"dqn {__version__}")
    elif {"-h", "--help"} & {*arguments}:
        say(help_text([a for a in arguments if not a.startswith("-")]))
    else:
        front_door(lambda: start(arguments))


if __name__ == "__main__":
    main()
else:
    sys.modules[__name__].__class__ = Verb
