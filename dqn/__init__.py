"""The deep Q-learning family as one small, composable, fast PyTorch program."""

__version__ = "0.1.0"
