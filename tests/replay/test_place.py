"""A replay memory that lies elsewhere than the network: batches travel, nothing else changes."""

import pytest
import torch
from conftest import FEW, RECIPES, mostly_slow, some

from dqn.config import build
from dqn.execution import engines
from dqn.programs import Programs
from dqn.replay.ring import Ring


@pytest.fixture
def apart(monkeypatch):
    """apart(run) wires its update as if the memory lay on another device."""

    def wire(run, engine=engines.Eager):
        trainer, cpu = run.trainer, torch.device("cpu")
        with monkeypatch.context() as patch:
            patch.setattr(Ring, "device", torch.device("meta"))
            programs = Programs(update=engine(cpu, 0).capture)
            trainer.update = build._update(trainer.memory, trainer.learner, programs, cpu)
        return run

    return wire


@pytest.mark.parametrize("recipe", mostly_slow(RECIPES, FEW))
def test_an_update_with_a_batch_from_elsewhere_is_the_same_update(small, apart, recipe):
    here, there = small(recipe), apart(small(recipe))
    before = {name: tensor.clone() for name, tensor in there.trainer.learner.state().items()}
    for run in (here, there):
        run.trainer.run()
    mine, other = here.trainer.learner.state(), there.trainer.learner.state()
    assert all(torch.equal(mine[name], other[name]) for name in mine)
    assert any((before[name] != other[name]).any() for name in other)
    kept = [run.trainer.memory.state() for run in (here, there)]
    assert all(torch.equal(kept[0][name], kept[1][name]) for name in kept[0])


@pytest.mark.parametrize("recipe", ["dqn", "rainbow", "r2d2", "pqn"])
def test_what_is_captured_then_is_the_learning_alone(small, apart, recorded_only, caplog, recipe):
    here, there = small(recipe), apart(small(recipe), engines.Compiled)
    for run in (here, there):
        run.trainer.run()
    mine, other = here.trainer.learner.state(), there.trainer.learner.state()
    for name in mine:
        torch.testing.assert_close(mine[name].double(), other[name].double(), rtol=0, atol=1e-4)
    assert not [r for r in caplog.records if "Falling back" in r.message]


@pytest.mark.gpu
@pytest.mark.parametrize("place", ["cpu", "memmap"])
@pytest.mark.parametrize("execution", ["eager", "cudagraph"])
@pytest.mark.parametrize("recipe", some(["dqn", "rainbow", "r2d2"], ["rainbow"]))
def test_a_memory_in_the_computer_feeds_a_gpu(small, recipe, execution, place):
    run = small(recipe, "device=cuda", f"replay.device={place}", f"execution={execution}")
    run.trainer.run()
    assert run.trainer.memory.ring.device.type == "cpu"
    assert all(p.device.type == "cuda" and p.isfinite().all() for p in run.trainer.learner.parameters)
    assert run.trainer.updates >= 75
