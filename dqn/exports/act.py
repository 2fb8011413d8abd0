"""Plays with an exported policy: python act.py [episodes]. It needs gymnasium, numpy and onnxruntime alone.

In a program: import act; action, state = act.act(obs, info, state). POLICY=FILE chooses another file than policy.onnx.
"""

import importlib
import json
import os
import sys
from functools import reduce
from pathlib import Path

import gymnasium
import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

HERE = Path(__file__).resolve().parent
EXPORT = json.loads((HERE / "export.json").read_text())
POLICY = onnxruntime.InferenceSession(HERE / os.environ.get("POLICY", "policy.onnx"))


def start(num_envs):
    """What a recurrent policy remembers where episodes begin: nothing."""
    return {name: np.zeros((num_envs, width), np.float32) for name, width in EXPORT["state"].items()}


def act(obs, info, state):
    """The actions for what a vector of environments shows, and what the policy remembers then."""
    given = {}
    for one in EXPORT["inputs"]:
        shown = info["action_mask"] if one["path"] is None else reduce(lambda entry, key: entry[key], one["path"], obs)
        given[one["name"]] = np.stack(list(shown)).astype(one["dtype"]).reshape(-1, *one["shape"])
    action, _, *remembered = POLICY.run(None, {**given, **state})
    return action, dict(zip(state, remembered, strict=True))


def make(num_envs):
    """The environments of the run."""
    for module in EXPORT["env"]["imports"]:
        importlib.import_module(module)
    wrappers = [
        lambda env, w=one: getattr(importlib.import_module(w["module"]), w["name"])(env, **w["arguments"])
        for one in EXPORT["env"]["wrappers"]
    ]
    options = EXPORT["env"]["options"] | ({"wrappers": wrappers} if wrappers else {})
    return gymnasium.make_vec(EXPORT["env"]["id"], num_envs, **options)


def play(episodes, seed=0):
    """The returns of so many episodes, one after the other."""
    env, returns, score, over = make(1), [], 0.0, False
    next_step = env.metadata["autoreset_mode"] == gymnasium.vector.AutoresetMode.NEXT_STEP
    obs, info = env.reset(seed=seed)
    state = start(1)
    while len(returns) < episodes:
        action, state = act(obs, info, state)
        obs, reward, terminated, truncated, info = env.step(action)
        if over and next_step:  # this step was no decision, it began the next episode
            state, over = start(1), False
            continue
        score, over = score + float(reward[0]), bool(terminated[0] or truncated[0])
        if over:
            returns.append(score)
            state, score = start(1), 0.0
    env.close()
    return returns


if __name__ == "__main__":
    found = play(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
    print(f"{len(found)} episodes: mean return {np.mean(found):.2f}")
