"""Engines: how a function is run, and on which device; they know nothing of reinforcement learning."""
