"""The settings that `scripts/bench peers` gives to this program, to Stable-Baselines3's DQN and to DQN in one file.

Nothing here needs a package: benchmarks/peer.py reads the settings under any interpreter.
"""

from __future__ import annotations

from typing import Any

from experiments import sb3

# `start` env_steps go before the first update and `warm` more before a window: their updates compile or capture what
# there is to; `steps` make a window. Source: CleanRL, dqn.py; Huber loss and clipping are Stable-Baselines3's, so that
# all three do the same arithmetic.
CLEANRL: dict[str, Any] = {
    "env": "CartPole-v1", "hidden": [120, 84], "lr": 2.5e-4, "gamma": 0.99, "buffer": 10_000, "batch_size": 128,
    "train_every": 10, "updates": 1, "target_every": 500, "epsilon": [1.0, 0.05], "epsilon_fraction": 0.5,
    "max_grad_norm": 10.0, "loss": "huber", "start": 10_000, "warm": 100, "steps": 20_000, "threads": 1,
    "network": "MLP 120-84 ReLU", "programs": ["eager+process", "sb3", "one-file"],
    "conf": "cartpole", "ours": [], "theirs": {},  # beside what all have in common
}  # fmt: skip
_ZOO = sb3.ZOO["CartPole-v1"]
ZOO: dict[str, Any] = {  # its start of 1,000 is raised to where all three learn at the same steps; a run of 49,920
    **CLEANRL, "hidden": sb3.NETWORK, "lr": _ZOO["learning_rate"], "gamma": _ZOO["gamma"],
    "buffer": _ZOO["buffer_size"], "batch_size": _ZOO["batch_size"], "train_every": _ZOO["train_freq"],
    "updates": _ZOO["gradient_steps"], "target_every": _ZOO["target_update_interval"],
    "epsilon": [1.0, _ZOO["exploration_final_eps"]], "epsilon_fraction": _ZOO["exploration_fraction"],
    "start": 1024, "warm": 256, "steps": 48_640, "network": "MLP 256-256 ReLU",
}  # fmt: skip
PONG: dict[str, Any] = {  # the zoo's for Atari, but for a memory of 10,000; images pay for threads, a process has none
    **CLEANRL, "env": "ALE/Pong-v5", "hidden": [512], "lr": 1e-4, "batch_size": 32, "train_every": 4,
    "target_every": 1000, "epsilon": [1.0, 0.01], "epsilon_fraction": 0.1, "start": 1000, "steps": 600, "threads": 2,
    "network": "NatureCNN on four frames of 84 × 84", "programs": ["sb3"], "conf": "atari",
    "ours": ["reward_clip=1", "replay.frame_stack=4", "replay.frame_padding=zero", "execution.channels_last=true"],
    "theirs": {"policy": "CnnPolicy", "policy_kwargs": {}},
}  # fmt: skip
SETTINGS = {"cleanrl": CLEANRL, "zoo": ZOO, "pong": PONG}


def overrides(start: int, total: int, of: dict[str, Any] = CLEANRL) -> list[str]:
    """Settings as this program's overrides: the first update after `start` env_steps, `total` of them in all."""
    return [
        *sb3.in_our_words(of["conf"], total, arguments_of_sb3(start, of), of["hidden"]), *of["ours"],
        f"max_grad_norm={of['max_grad_norm']}", f"tuned.loss={of['loss']}", f"execution.threads={of['threads']}",
        f"exploration.epsilon.start={of['epsilon'][0]}", "tracking.evaluate_every=0", "tracking.checkpoint_every=0",
    ]  # fmt: skip


def arguments_of_sb3(start: int, of: dict[str, Any] = CLEANRL) -> dict[str, Any]:
    """Settings as Stable-Baselines3 names them."""
    first, last = of["epsilon"]
    return {
        "policy": "MlpPolicy", "env": of["env"], "learning_rate": of["lr"], "buffer_size": of["buffer"],
        "learning_starts": start, "batch_size": of["batch_size"], "gamma": of["gamma"], "tau": 1.0,
        "train_freq": of["train_every"], "gradient_steps": of["updates"], "target_update_interval": of["target_every"],
        "exploration_fraction": of["epsilon_fraction"], "exploration_initial_eps": first,
        "exploration_final_eps": last, "max_grad_norm": of["max_grad_norm"],
        "policy_kwargs": {"net_arch": of["hidden"]}, **of["theirs"],
    }  # fmt: skip


def settings_of_one_file(start: int, total: int, seed: int, of: dict[str, Any] = CLEANRL) -> dict[str, Any]:
    """Settings as the one-file program names them; all its random streams from one seed."""
    first, last = of["epsilon"]
    streams = ("seed_parameters", "seed_env", "seed_exploration", "seed_replay")
    return {
        "env_id": of["env"], "steps": total, "hidden": tuple(of["hidden"]), "lr": of["lr"], "gamma": of["gamma"],
        "capacity": of["buffer"], "batch_size": of["batch_size"], "learning_starts": start,
        "train_every": of["train_every"], "updates": of["updates"], "target_period": of["target_every"],
        "epsilon_start": first, "epsilon_end": last, "epsilon_steps": round(total * of["epsilon_fraction"]),
        "max_grad_norm": of["max_grad_norm"], **dict.fromkeys(streams, seed),
    }  # fmt: skip
