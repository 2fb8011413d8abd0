"""Every recipe: builds, updates, stays finite, and is documented."""

import re

import pytest
import torch
from conftest import EVERY, FEW, PRETENDED, RECIPES, some, world

from dqn.config.cli import CONF
from dqn.networks.layers import Linear, Noisy


@pytest.mark.parametrize("recipe", RECIPES)
def test_updates_are_finite_and_move_the_parameters(small, recipe):
    run = small(recipe)
    before = [p.clone() for p in run.trainer.learner.parameters]
    run.trainer.run()
    assert run.trainer.updates >= 75
    assert all(p.isfinite().all() for p in run.trainer.learner.parameters)
    assert not all(map(torch.equal, before, run.trainer.learner.parameters))


@pytest.mark.parametrize("recipe", EVERY)
def test_a_recipe_opens_with_its_paper_and_its_command(recipe):
    comment = [
        line for line in (CONF / "algorithm" / f"{recipe}.yaml").read_text().splitlines() if line.startswith("#")
    ]
    assert any("(19" in line or "(20" in line for line in comment)
    assert any("python -m dqn.train" in line for line in comment)


@pytest.mark.parametrize("recipe", ["noisy_dqn", "rainbow", "rainbow_iqn", "der", "btr"])
@pytest.mark.parametrize("torso", ["mlp", "table", "dict", "minatar_cnn"])
def test_noisy_recipes_have_no_other_linear_maps_whatever_they_see(wired, recipe, torso):
    """Fortunato et al. (2018), §3.2: the fully connected layers, all of them; on vectors too. What embeds the fractions
    of the implicit quantiles is plain in the authors' code of Rainbow-IQN and of BTR. The hidden layers of an MLP are
    plain in Rainbow, too: its file says why."""
    where = {
        "mlp": ["env=cartpole"],
        "table": ["env=chain"],
        "dict": [*world("test/DictImage-v0"), "torso@torso.image=minatar_cnn"],
        "minatar_cnn": world("test/Image-v0", "+env.kwargs.shape=[10,10,4]"),
    }[torso]
    if torso == "table" and recipe in ("rainbow_iqn", "btr"):
        pytest.skip("fractions multiply features, a table has none")
    options = [f"torso={torso}", "steps=100", "replay.capacity=100", "env.num_envs=2"]
    online = wired(f"algorithm={recipe}", *where, *options).trainer.learner.online
    maps = {n: m for n, m in online.named_modules() if isinstance(m, torch.nn.Linear) and "embedding" not in n}
    if recipe.startswith("rainbow"):
        plain = {n for n in maps if re.match(r"torso\.(torsos\.\d+\.)?layers\.", n)}
        assert {type(maps.pop(n)) for n in plain} <= {Linear}
    assert len(maps) >= (2 if torso == "table" and recipe != "noisy_dqn" else 1)
    assert {type(m) for m in maps.values()} == {Noisy}, [n for n, m in maps.items() if type(m) is not Noisy]


@pytest.mark.gpu
@pytest.mark.parametrize("recipe", some(RECIPES, FEW))
def test_recipes_run_on_a_gpu_without_a_sync_per_update(small, recipe):
    run = small(recipe, "device=cuda", *["steps=100"] * PRETENDED)
    run.trainer.run()
    torch.cuda.set_sync_debug_mode("error")
    try:
        run.trainer.update()
        run.trainer.learner.sync_target()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
def test_auto_chooses_the_gpu_and_says_so(wired):
    run = wired(*world("test/OneState-v0", "steps=20", "device=auto"))
    assert run.device.type == "cuda"
    assert "auto: " in run.summary
    assert torch.cuda.get_device_name() in run.summary
