"""Worlds: any Gymnasium environment behind one adapter, and worlds whose Q* is known.

Importing this room registers `dqn/RandomMDP-v0` and `dqn/Chain-v0` with Gymnasium.
"""

import gymnasium

gymnasium.register("dqn/RandomMDP-v0", entry_point="dqn.envs.tabular:RandomMDP", max_episode_steps=100)
gymnasium.register("dqn/Chain-v0", entry_point="dqn.envs.tabular:Chain", max_episode_steps=50)
