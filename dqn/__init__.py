"""The deep Q-learning family as one small, composable, fast PyTorch program."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dqn.agent import Agent

__version__ = "0.1.0"


def load(run: str, device: str = "cpu") -> "Agent":
    """What the run in a directory has learnt, to act with: see dqn.agent.Agent.

    Errors: types.UsageError where no run lies there, or it has no checkpoint.
    """
    from dqn.agent import load as load_agent  # torch takes seconds

    return load_agent(run, device)
