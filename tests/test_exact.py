"""Every recipe reaches the known Q* of small worlds, under both endings; the Q-table equals the Q-table."""

import numpy as np
import pytest
import torch
from oracles import q_table

from dqn.cli import CONF

RECIPES = sorted(path.stem for path in (CONF / "algorithm").glob("*.yaml"))
SMALL = ["env=mdp1000", "experiment=none", "+env.kwargs.states=6", "+env.kwargs.actions=3", "gamma=0.8"]
NUMBERS = {  # what a small table needs of each kind of recipe
    "tabular": ["optimizer.lr=0.2", "lr_schedule.end=0", "lr_schedule.steps=6000", "steps=6000"],
    "deep": ["torso.hidden=[64]", "optimizer.lr=3e-3", "lr_schedule.end=0", "lr_schedule.steps=8000", "steps=8000",
             "learning_starts=500", "train_every=4", "target.period=50", "replay.batch_size=128", "env.num_envs=4"],
}  # fmt: skip
EXPLORE = ["exploration.epsilon.end=1.0"]


@pytest.mark.parametrize("ending", ["truncation", "termination"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_reaches_q_star(wired, recipe, ending):
    # an end by chance would need many more samples for the same certainty: that world is deterministic
    final = ["+env.kwargs.final=2", "+env.kwargs.branching=1"]
    if ending == "truncation":
        final = ["env.max_episode_steps=7", "+env.kwargs.branching=2"]
    numbers = NUMBERS["tabular" if recipe == "tabular" else "deep"]
    run = wired(f"algorithm={recipe}", *SMALL, *numbers, *EXPLORE, *final)
    run.trainer.run()
    known = run.trainer.evaluate(1)["known_q"]
    assert known["max_error"] < 0.05, known


@pytest.mark.parametrize("recipe", RECIPES)
def test_a1_a_time_limit_is_no_end(wired, recipe):
    """One state, reward 1, episodes of 10 steps: Q = 1/(1−γ), not the sum of ten rewards."""
    numbers = ["optimizer.lr=0.2", "steps=1500"] if recipe == "tabular" else [
        "torso.hidden=[16]", "optimizer.lr=1e-2", "steps=3000", "train_every=1", "learning_starts=100",
        "target.period=20", "replay.batch_size=16",
    ]  # fmt: skip
    run = wired(f"algorithm={recipe}", "env=gym", "env.id=test/OneState-v0", "gamma=0.9", *numbers)
    run.trainer.run()
    q = run.trainer.learner.online(torch.tensor([0])).q.item()
    assert q == pytest.approx(10.0, abs=0.1)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-6)])
def test_the_table_recipe_is_the_q_table(wired, dtype, tolerance):
    """Fed with the run's own transitions, a dictionary Q-table ends with the same numbers."""
    torch.set_default_dtype(dtype)
    try:
        run = wired(
            "algorithm=tabular",
            *SMALL,
            *[
                "steps=3000",
                "optimizer.lr=0.2",
                "+env.kwargs.final=1",
                "+env.kwargs.branching=2",
                "replay.capacity=4000",
            ],
        )
        run.trainer.run()
        ring = run.trainer.memory.ring
        rows = [int(ring.starts[i, 0]) for i in range(int(ring.added))]
        assert len(rows) == run.trainer.updates == 3000
        stream = [
            (int(ring.obs[t, 0]), int(ring.action[t, 0]), float(ring.reward[t, 0]), bool(ring.terminated[t, 0]),
             int(ring.obs[t + 1, 0]))
            for t in rows
        ]  # fmt: skip
        want = q_table.q_learning(stream, actions=3, lr=0.2, gamma=0.8)
        got = run.trainer.learner.online(torch.arange(6)).q
        assert max(abs(got[s, a].item() - want[s, a]) for s in range(6) for a in range(3)) <= tolerance
    finally:
        torch.set_default_dtype(torch.float32)


def test_known_q_is_reported_over_all_states(wired):
    run = wired("algorithm=tabular", "env=chain", "steps=10", "gamma=0.9")
    known = run.trainer.evaluate(1)["known_q"]
    optimal = run.trainer.envs.optimal_q(0.9)
    assert known["max_error"] == pytest.approx(np.abs(optimal).max())
    assert known["range"] == pytest.approx(np.ptp(optimal))
