"""Worlds: any Gymnasium environment behind one adapter, worlds whose Q* is known, and worlds that need memory.

Importing this room registers `dqn/RandomMDP-v0`, `dqn/Chain-v0`, `dqn/TMaze-v0` and `dqn/CartPoleHidden-v1` with
Gymnasium.
"""

import gymnasium

gymnasium.register("dqn/RandomMDP-v0", entry_point="dqn.envs.tabular:RandomMDP", max_episode_steps=100)
gymnasium.register("dqn/Chain-v0", entry_point="dqn.envs.tabular:Chain", max_episode_steps=50)
gymnasium.register("dqn/TMaze-v0", entry_point="dqn.envs.memory_tasks:TMaze", max_episode_steps=100)
gymnasium.register("dqn/CartPoleHidden-v1", entry_point="dqn.envs.memory_tasks:hidden_cartpole", max_episode_steps=500)
