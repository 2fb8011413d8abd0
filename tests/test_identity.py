"""Every recipe solves the world whose observation is the action to take: what is wired wrongly learns nothing there."""

import pytest
from conftest import RECIPES, world

STEPS = 2500
NUMBERS = [
    f"steps={STEPS}", "gamma=0.4", "learning_starts=200", "train_every=2", "tuned.hidden=[32,32]", "tuned.lr=2e-3",
    "tuned.batch_size=32", "tuned.target_period=50", "tuned.v_min=0", "tuned.v_max=2", "tuned.quantiles=16",
    "tuned.samples=8", "tuned.epsilon_steps=1500",
]  # fmt: skip
SEQUENCES = ["replay.length=8", "tuned.batch_size=16", "tuned.core_hidden=16", "steps=4000"]
OWN = {  # what a recipe needs that was made for another world; the rest is as its file has it
    "der": ["torso=mlp", "output.hidden=[]"],
    "btr": ["torso=mlp", "output.hidden=[]", "env.num_envs=4", "train_every=4"],
    "drqn": SEQUENCES,
    "r2d2": [*SEQUENCES, "replay.burn_in=4", "replay.stride=4", "env.num_envs=4"],
    "pqn": ["env.num_envs=8", "replay.length=4", "passes.minibatches=1", "learning_starts=0", "steps=20000",
            "train_every=32", "tuned.epsilon_steps=10000"],
    "tabular": [f"steps={STEPS}", "gamma=0.4", "optimizer.lr=0.2", "tuned.epsilon_steps=1500"],
    "cql": ["learning_starts=0", "train_every=1"],
}  # fmt: skip
FAST = {"dqn", "tabular", "pqn", "c51", "noisy_dqn"}
KIND = {"tabular": "states"}  # a table has no entry for a real number
KINDS = {"states": [], "box": ["+env.kwargs.box=true"]}
CASES = [
    pytest.param(
        recipe, kind, 0, marks=[] if recipe in FAST and kind == KIND.get(recipe, "box") else [pytest.mark.slow]
    )
    for recipe in RECIPES
    for kind in KINDS
    if recipe not in KIND or kind == KIND[recipe]
]
CASES += [pytest.param("rainbow_iqn", "box", seed, marks=pytest.mark.slow) for seed in (1, 2)]


def recorded(wired, *where):
    """The directory of a run that acted at random."""
    run = wired(*where, *NUMBERS, "tuned.epsilon_end=1.0", f"learning_starts={STEPS}")
    run.trainer.run()
    return run.trainer.directory


@pytest.mark.parametrize(("recipe", "kind", "seed"), CASES)
def test_every_recipe_takes_the_action_that_it_sees(wired, recipe, kind, seed):
    where = world("test/Identity-v0", *KINDS[kind])
    data = [f"replay.path={recorded(wired, *where)}"] if recipe == "cql" else []
    numbers = [] if recipe == "tabular" else NUMBERS
    run = wired(f"algorithm={recipe}", *where, *numbers, *OWN.get(recipe, []), *data, f"seed={seed}")
    run.trainer.run()
    assert run.trainer.evaluate(10)["returns"] == [10.0] * 10
