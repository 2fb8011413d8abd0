"""Stable-Baselines3's DQN with the settings of rl-baselines3-zoo, judged as our own runs are: the yardstick.

Needs stable-baselines3 alone, nothing of this package, so it may live in a venv of its own:
  PATH/bin/python scripts/experiments/sb3.py env=CartPole-v1 steps=50000 seed=0 out=DIRECTORY
"""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

# Source: rl-baselines3-zoo, hyperparams/dqn.yml; all with a network of 256-256. Acrobot and LunarLander share theirs.
_ZOO: dict[str, dict[str, Any]] = {
    "CartPole-v1": {
        "learning_rate": 2.3e-3, "batch_size": 64, "buffer_size": 100_000, "learning_starts": 1000, "gamma": 0.99,
        "target_update_interval": 10, "train_freq": 256, "gradient_steps": 128,
        "exploration_fraction": 0.16, "exploration_final_eps": 0.04,
    },
    "MountainCar-v0": {
        "learning_rate": 4e-3, "batch_size": 128, "buffer_size": 10_000, "learning_starts": 1000, "gamma": 0.98,
        "target_update_interval": 600, "train_freq": 16, "gradient_steps": 8,
        "exploration_fraction": 0.2, "exploration_final_eps": 0.07,
    },
    "Acrobot-v1": {
        "learning_rate": 6.3e-4, "batch_size": 128, "buffer_size": 50_000, "learning_starts": 0, "gamma": 0.99,
        "target_update_interval": 250, "train_freq": 4, "gradient_steps": 4,
        "exploration_fraction": 0.12, "exploration_final_eps": 0.1,
    },
}  # fmt: skip
ZOO = {**_ZOO, "LunarLander-v3": _ZOO["Acrobot-v1"]}
NETWORK = [256, 256]
EPISODES = 100  # as conf/tracking/default.yaml, final_episodes


def in_our_words(env: str, steps: int, of: dict[str, Any], network: list[int]) -> list[str]:
    """Arguments of its DQN, and the network, as overrides of this program's, and nothing tuned beside them."""
    numbers = {
        "hidden": network, "norm": "null", "lr": of["learning_rate"], "capacity": of["buffer_size"],
        "batch_size": of["batch_size"], "target_period": of["target_update_interval"],
        "epsilon_end": of["exploration_final_eps"], "epsilon_steps": round(steps * of["exploration_fraction"]),
    }  # fmt: skip
    return [
        f"env={env}", "tuned=none", "experiment=none", "env.num_envs=1", f"gamma={of['gamma']}", "n_step=1",
        f"steps={steps}", f"learning_starts={of['learning_starts']}", f"train_every={of['train_freq']}",
        f"updates={of['gradient_steps']}", *(f"tuned.{name}={value}" for name, value in numbers.items()),
    ]  # fmt: skip


def evaluate(model: Any, env: Any, episodes: int, seed: int) -> dict[str, Any]:
    """Greedy play of whole episodes in an environment of its own, raw returns."""
    returns, lengths = [], []
    obs, _ = env.reset(seed=seed)
    while len(returns) < episodes:
        total, length, over = 0.0, 0, False
        while not over:
            action, _ = model.predict(obs, deterministic=True)
            obs, reward, terminated, truncated, _ = env.step(int(action))
            total, length, over = total + float(reward), length + 1, terminated or truncated
        returns.append(total)
        lengths.append(length)
        obs, _ = env.reset()
    return {"episodes": episodes, "mean": sum(returns) / episodes, "returns": returns, "lengths": lengths, "seed": seed}


def train(env_id: str, steps: int, seed: int) -> dict[str, Any]:
    """One run; the same fields as our own result.json. Seconds end before the closing evaluation, as ours do."""
    import gymnasium
    import numpy
    import stable_baselines3
    import torch

    torch.set_num_threads(1)
    started = perf_counter()
    model = stable_baselines3.DQN(
        "MlpPolicy", gymnasium.make(env_id), policy_kwargs={"net_arch": NETWORK}, seed=seed, device="cpu", **ZOO[env_id]
    )
    model.learn(steps)
    seconds = perf_counter() - started
    versions = {m.__name__: m.__version__ for m in (stable_baselines3, torch, gymnasium, numpy)}
    return {
        "evaluation": evaluate(model, gymnasium.make(env_id), EPISODES, 1_000_000 + seed),  # no training seed
        "training_return": float(numpy.mean([e["r"] for e in model.ep_info_buffer])),  # last 100 episodes, exploring
        "env_steps": model.num_timesteps,
        "updates": model._n_updates,
        "seconds": seconds,
        "device": "cpu",
        "versions": {**versions, "python": platform.python_version()},
    }


if __name__ == "__main__":
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    result = train(given["env"], int(given["steps"]), int(given["seed"]))
    directory = Path(given["out"])
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "result.json.part").write_text(json.dumps(result, indent=1))
    (directory / "result.json.part").replace(directory / "result.json")
