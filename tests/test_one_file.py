"""The package equals one file of plain PyTorch, to the last bit."""

import pytest
import torch
from oracles.one_file_dqn import Settings, train

from dqn.tracking.seeding import stream

COMMON = [
    "algorithm=dqn", "env=gym", "env.id=CartPole-v1", "env.autoreset=same_step", "steps=2000", "torso.hidden=[120,84]",
    "optimizer.lr=2.5e-4", "gamma=0.99", "replay.batch_size=128", "learning_starts=1000", "train_every=10",
    "target.period=500", "max_grad_norm=10.0",
]  # fmt: skip


@pytest.mark.parametrize("capacity", [10_000, 300])  # the second wraps the memory
def test_package_equals_one_file_dqn_after_100_updates(wired, capacity):
    run = wired(*COMMON, f"replay.capacity={capacity}")
    run.trainer.run()
    seeds = {
        "seed_parameters": stream(0, "parameters"), "seed_env": stream(0, "env", 0),
        "seed_exploration": stream(0, "exploration"), "seed_replay": stream(0, "replay"),
    }  # fmt: skip
    parameters, updates, _ = train(Settings(capacity=capacity, **seeds))
    assert updates == run.trainer.updates == 100
    for want, got in zip(parameters, run.trainer.learner.parameters, strict=True):
        assert torch.equal(want, got)
