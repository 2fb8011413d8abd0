"""The deep Q-learning family as one small, composable, fast PyTorch program."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dqn.errors import RunError, UsageError

if TYPE_CHECKING:
    from dqn.agent import Agent
    from dqn.api import train

__all__ = ["RunError", "UsageError", "load", "train"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`dqn.train`, both the module after `python -m dqn.train` and what is called: it is imported where it is used."""
    if name == "train":
        return importlib.import_module("dqn.train")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def load(run: str | Path, device: str = "cpu", trust: Sequence[str] = (), env: Any = None) -> "Agent":
    """The agent that the run in a directory has trained (dqn.agent.Agent).

    Nothing in the directory is executed: parts and environments that are not of this package must be trusted by the
    name of their module, `trust=["mine"]`. `env` is a class, a function or an environment that stands in for the run's
    own, where only this program has it.
    Errors: dqn.errors.UsageError where no run lies there, it has no checkpoint, or it names code that is not trusted.
    """
    from dqn.agent import load as load_agent  # importing torch takes seconds

    return load_agent(run, device, trust, env)
