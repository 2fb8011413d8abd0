"""Every recipe reaches the known Q* of small worlds, under both endings; the Q-table equals the Q-table."""

import numpy as np
import pytest
import torch
from conftest import RECIPES
from oracles import exact, q_table

from dqn.tracking.evaluation import known_values

SMALL = ["env=mdp1000", "experiment=none", "+env.kwargs.states=6", "+env.kwargs.actions=3", "gamma=0.8"]
STEPS = 6000
DEEP = [
    "torso.hidden=[64]", "optimizer.lr=3e-3", "lr_schedule.end=0", f"lr_schedule.steps={STEPS}", f"steps={STEPS}",
    "learning_starts=500", "train_every=4", "tuned.target_period=50", "replay.batch_size=128", "env.num_envs=4",
    "tuned.v_min=0", "tuned.v_max=5", "tuned.quantiles=16", "tuned.samples=8", "n_step=1",
]  # fmt: skip
LONGER = [*DEEP, "steps=12000", "lr_schedule.steps=12000"]  # noise and sampled fractions take their time to average out
NUMBERS = {  # what a small world needs of a recipe: without a correction only one-step returns are off-policy
    "tabular": ["optimizer.lr=0.2", "lr_schedule.end=0", "lr_schedule.steps=4000", "steps=4000"],
    "pqn": [
        "torso.hidden=[64]", "optimizer.lr=3e-3", "lr_schedule.end=0", "lr_schedule.steps=24000",
        "steps=24000", "env.num_envs=16", "replay.length=16", "lambda_=0.0", "passes.minibatches=8",
    ],
    "drqn": [*LONGER, "core.hidden=32", "replay.length=4", "replay.batch_size=32", "train_every=8"],
    "r2d2": [
        *LONGER, "core.hidden=32", "replay.length=4", "replay.burn_in=1", "replay.stride=1", "replay.batch_size=32",
        "train_every=8", "env.wrappers.last_step=null",  # Q of the state alone
    ],
    "fqf": [*DEEP, "head.atoms=8"],
    **dict.fromkeys(["noisy_dqn", "rainbow_iqn", "iqn"], LONGER),
    "rainbow": [*DEEP, "head.atoms=21"],
    "der": [*DEEP, "head.atoms=21", "torso=mlp", "output.hidden=[]"],
    "btr": [*LONGER, "torso=mlp", "output.hidden=[]", "tuned.samples=16"],
    "cql": [
        "torso.hidden=[64]", "optimizer.lr=3e-3", "lr_schedule.end=0", "lr_schedule.steps=2000", "steps=2000",
        "tuned.target_period=12", "replay.batch_size=128", "terms.conservative.weight=0",
    ],
}  # fmt: skip
BACKUPS = {  # recipes that end elsewhere than at Q*
    "munchausen": {"rule": "munchausen", "scale": 0.9, "temperature": 0.03, "floor": -1.0},
    "btr": {"rule": "munchausen", "scale": 0.9, "temperature": 0.03, "floor": -1.0},
}
EXPLORE = ["exploration=epsilon_greedy", "exploration.epsilon.end=1.0"]
CERTAIN = {  # where a step's outcome is random, these end beside the expected value, each as its paper has it
    "r2d2": "h⁻¹(E h(y)) is not E y",
    **dict.fromkeys(["qr_dqn", "iqn", "fqf", "rainbow_iqn", "btr"], "the mean of Huber's quantiles is not the mean"),
    **dict.fromkeys(["per", "rainbow", "der"], "priorities favour the rarer outcome while their exponent is below 1"),
}
WORLDS = {  # an end by chance would need many more samples for the same certainty: that world is deterministic
    "termination": ["+env.kwargs.final=2", "+env.kwargs.branching=1"],
    "truncation, masked": ["env.max_episode_steps=7", "+env.kwargs.branching=2", "+env.kwargs.legal=0.6"],
}
OFTEN = {  # the others are slow tests: what they are made of, these are made of too; the masked world is the harder one
    "termination": {"dqn", "tabular"},
    "truncation, masked": {*RECIPES} - {"der", "drqn", "iqn", "n_step", "rainbow_iqn"},
}
CASES = [
    pytest.param(recipe, world, marks=[] if recipe in often else [pytest.mark.slow])
    for world, often in OFTEN.items()
    for recipe in RECIPES
]


def furthest(run, **backup):
    """max |Q − Q of the dynamic programme| over all states and actions where it is defined."""
    world = run.trainer.collector.envs.envs.envs[0].unwrapped
    optimal = exact.fixed_point(world, 0.8, **backup)
    device, known = torch.device("cpu"), ~np.isnan(optimal)
    network = run.trainer.learner.online.eval()
    got = known_values(network, optimal, device, 0.8, run.trainer.learner.objective.transform)
    network.train()
    assert known.any()
    return got["max_error"]


def played(wired, *overrides):
    """The directory of a run that explored at random and kept all it saw."""
    run = wired("torso.hidden=[4]", *SMALL, *overrides, *EXPLORE, "steps=8000", "train_every=4000", "env.num_envs=4")
    run.trainer.run()
    return run.trainer.directory


@pytest.mark.parametrize(("recipe", "world"), CASES)
def test_every_recipe_reaches_the_known_values(wired, recipe, world):
    """Q* by dynamic programming, or the fixed point of the recipe's own backup, also with masks."""
    given = [*WORLDS[world], *(["env.kwargs.branching=1"] if recipe in CERTAIN else [])]
    data = [f"replay.path={played(wired, *given)}"] if recipe == "cql" else []
    run = wired(f"algorithm={recipe}", *SMALL, *NUMBERS.get(recipe, DEEP), *EXPLORE, *given, *data)
    run.trainer.run()
    error = furthest(run, **BACKUPS.get(recipe, {}))
    assert error < 0.05, error


@pytest.mark.parametrize(("rule", "numbers"), [("soft", {"temperature": 0.3}), ("expected_sarsa", {"epsilon": 0.3})])
def test_every_other_backup_reaches_its_own_fixed_point(wired, rule, numbers):
    given = [f"backup.{name}={value}" for name, value in numbers.items()]
    run = wired(f"backup={rule}", *given, *SMALL, *DEEP, *EXPLORE, *WORLDS["truncation, masked"])
    run.trainer.run()
    assert furthest(run, rule=rule, **numbers) < 0.05
    assert furthest(run) > 0.1  # which is not Q*


@pytest.mark.parametrize("recipe", ["dqn", "tabular"])
def test_a_time_limit_is_no_end(wired, recipe):
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
    optimal = run.trainer.collector.envs.optimal_q(0.9)
    assert known["max_error"] == pytest.approx(np.abs(optimal).max())
    assert known["range"] == pytest.approx(np.ptp(optimal))
