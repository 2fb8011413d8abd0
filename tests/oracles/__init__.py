"""Slow and obvious: what the package must agree with. Nothing here imports dqn."""
