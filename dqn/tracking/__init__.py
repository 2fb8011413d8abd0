"""The diary: log, checkpoints, evaluation, seeds."""
