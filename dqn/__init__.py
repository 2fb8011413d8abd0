"""The deep Q-learning family as one small, composable, fast PyTorch program."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dqn.agent import Agent

__version__ = "0.1.0"


def load(run: str, device: str = "cpu", trust: Sequence[str] = ()) -> "Agent":
    """The agent that the run in a directory has trained (dqn.agent.Agent).

    Nothing in the directory is executed: parts and environments that are not of this package must be trusted by the
    name of their module, `trust=["mine"]`.
    Errors: dqn.errors.UsageError where no run lies there, it has no checkpoint, or it names code that is not trusted.
    """
    from dqn.agent import load as load_agent  # importing torch takes seconds

    return load_agent(run, device, trust)
