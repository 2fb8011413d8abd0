"""Every recipe: builds, updates, stays finite, and is documented."""

import pytest
import torch
from conftest import FEW, PRETENDED, RECIPES, some, world

from dqn.cli import CONF
from dqn.networks.layers import Linear, Noisy


@pytest.mark.parametrize("recipe", RECIPES)
def test_updates_are_finite_and_move_the_parameters(small, recipe):
    run = small(recipe)
    before = [p.clone() for p in run.trainer.learner.parameters]
    run.trainer.run()
    assert run.trainer.updates >= 75
    assert all(p.isfinite().all() for p in run.trainer.learner.parameters)
    assert not all(map(torch.equal, before, run.trainer.learner.parameters))


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_opens_with_its_paper_and_its_command(recipe):
    comment = [
        line for line in (CONF / "algorithm" / f"{recipe}.yaml").read_text().splitlines() if line.startswith("#")
    ]
    assert any("(19" in line or "(20" in line for line in comment)
    assert any("python -m dqn.train" in line for line in comment)


@pytest.mark.parametrize("recipe", ["noisy_dqn", "rainbow", "rainbow_iqn"])
@pytest.mark.parametrize(("torso", "plain", "noisy"), [("mlp", 2, 0), ("table", 0, 0), ("dict", 6, 1)])
def test_noisy_recipes_replace_the_linear_maps_behind_convolutions(wired, recipe, torso, plain, noisy):
    """The papers' are all behind convolutions; noise in the first layers of an MLP learns badly (CHANGELOG)."""
    where = {"mlp": ["env=chain"], "table": ["env=chain"], "dict": world("test/DictImage-v0")}[torso]
    image = ["torso@torso.image=minatar_cnn"] if torso == "dict" else []  # one map; two in an MLP of each other entry
    online = wired(f"algorithm={recipe}", *where, f"torso={torso}", *image, "steps=100").trainer.learner.online
    found = [type(m) for m in online.torso.modules() if isinstance(m, (Linear, torch.nn.Linear))]
    assert sorted(found, key=str) == [Linear] * plain + [Noisy] * noisy
    in_head = [type(m) for m in online.head.modules() if isinstance(m, (Linear, torch.nn.Linear))]
    assert Noisy in in_head


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
def test_b8_auto_chooses_the_gpu_and_says_so(wired):
    run = wired(*world("test/OneState-v0", "steps=20", "device=auto"))
    assert run.device.type == "cuda"
    assert "auto: " in run.card
    assert torch.cuda.get_device_name() in run.card
