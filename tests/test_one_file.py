"""The package equals one file of plain PyTorch.

Both do the same operations, but for one: here the optimizer steps over all parameters as one vector. A processor rounds
the last few numbers of a vector otherwise than those before, so after 100 updates some differ in their last bits.
"""

import pytest
import torch
from oracles.one_file_dqn import Settings, train

from dqn.seeding import stream

COMMON = [
    "algorithm=dqn", "env=gym", "env.id=CartPole-v1", "env.autoreset=same_step", "steps=2000", "torso.hidden=[120,84]",
    "optimizer.lr=2.5e-4", "gamma=0.99", "replay.batch_size=128", "learning_starts=1000", "max_grad_norm=10.0",
]  # fmt: skip


@pytest.mark.parametrize(
    ("capacity", "train_every", "updates", "period"),
    [(10_000, 10, 1, 500), (300, 10, 1, 500), (10_000, 50, 5, 12)],  # the second wraps the memory
)
def test_package_equals_one_file_dqn_after_100_updates(wired, capacity, train_every, updates, period):
    run = wired(*COMMON, f"replay.capacity={capacity}", f"train_every={train_every}", f"updates={updates}",
                f"target.period={period}")  # fmt: skip
    run.trainer.run()
    seeds = {
        "seed_parameters": stream(0, "parameters"), "seed_env": stream(0, "env", 0),
        "seed_exploration": stream(0, "exploration"), "seed_replay": stream(0, "replay"),
    }  # fmt: skip
    of = Settings(capacity=capacity, train_every=train_every, updates=updates, target_period=period, **seeds)
    parameters, done, _ = train(of)
    assert done == run.trainer.updates == 100
    for want, got in zip(parameters, run.trainer.learner.parameters, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-7)
