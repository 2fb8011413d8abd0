"""The deep Q-learning family as one small, composable, fast PyTorch program."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dqn.errors import RunError, UsageError

if TYPE_CHECKING:
    from dqn.agent import Agent

__all__ = ["RunError", "UsageError", "load", "train"]
__version__ = "0.1.0"


def train(
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
        env: the id of a Gymnasium environment, `module:Class`, a choice of conf/env (`cartpole`, `tensor_breakout`), a
            class, a function that makes an environment, or one environment, which is played in, evaluated in and not
            closed. None takes what the command line takes.
        algorithm: a choice of conf/algorithm.
        steps: decisions of all environments together.
        seed: of everything that is drawn.
        overrides: more options, as on the command line, ["optimizer.lr=1e-3"], or as a dict, nested or with dots.
        callbacks: each is called as callback(trainer, numbers) after numbers were logged, an evaluation was played or a
            checkpoint was saved. One that returns True ends the run there, and the closing evaluation follows. One that
            raises ends the run with a checkpoint and its own exception.
        progress: show a bar on a terminal, lines elsewhere. False: warnings alone.
        directory: where the run is written; "auto" is runs/ALGORITHM-ENVIRONMENT-SEED-TIME, None keeps nothing.
        device: auto, cpu, cuda.
        resume: a run's directory, to go on from its newest checkpoint. `env` is then what only this program has, a
            lambda or a class of a notebook.
        trust: modules of one's own that a resumed run names.
        options: options whose names have no dots, gamma=0.98 or replay="prioritized".

    Ctrl-C ends the run with a checkpoint and raises KeyboardInterrupt; a second one raises it at once.
    Errors: UsageError for input that is wrong, RunError where the run cannot go on, with the command line's sentences.
    """
    from dqn.api import train as train_agent  # importing torch takes seconds

    return train_agent(
        env, algorithm, steps, seed, overrides=overrides, callbacks=callbacks, progress=progress, directory=directory,
        device=device, resume=resume, trust=trust, **options,
    )  # fmt: skip


def load(run: str | Path, device: str = "cpu", trust: Sequence[str] = (), env: Any = None) -> "Agent":
    """The agent that the run in a directory has trained (dqn.agent.Agent).

    Nothing in the directory is executed: parts and environments that are not of this package must be trusted by the
    name of their module, `trust=["mine"]`. `env` is a class, a function or an environment that stands in for the run's
    own, where only this program has it.
    Errors: dqn.errors.UsageError where no run lies there, it has no checkpoint, or it names code that is not trusted.
    """
    from dqn.agent import load as load_agent  # importing torch takes seconds

    return load_agent(run, device, trust, env)
