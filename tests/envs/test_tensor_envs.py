"""Tensor worlds behind the door of environments: limits, resets, the collector, and exact resumes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import configure, mostly_slow, some

from dqn.config import parts
from dqn.config.cli import CONF
from dqn.envs.tensor.envs import TensorEnvs
from dqn.tracking.checkpoint import Checkpoints
from dqn.types import Spec

WORLDS = sorted(path.stem for path in (CONF / "env").glob("tensor_*.yaml"))


class Counting:
    """Shows how many steps were made and which episode it is; ends after `ends` steps, reward 1, 2, 3 …"""

    def __init__(self, ends=3, limit=0):
        self.spec, self.limit, self.ends = Spec((2,), np.dtype(np.float32), 2), limit, ends

    def reset(self, num_envs, generator, device):
        name = torch.randint(1000, (num_envs,), generator=generator, device=device).float()
        return {"steps": torch.zeros(num_envs, device=device), "name": name}

    def step(self, state, action, generator):
        steps = state["steps"] + 1
        return {**state, "steps": steps}, steps, steps == self.ends

    def observe(self, state):
        return torch.stack([state["steps"], state["name"]], -1)


@pytest.mark.parametrize(("ends", "limit", "length"), [(3, 0, 3), (3, 5, 3), (9, 4, 4), (3, 3, 3)])
def test_episodes_end_once_and_begin_at_once(ends, limit, length):
    envs = TensorEnvs(Counting(ends, limit), 2)
    obs = envs.reset(0)
    for tick in range(1, 20):
        step = envs.step(np.zeros(2, np.int64))
        place = (tick - 1) % length + 1
        over = place == length
        assert step.reward.tolist() == [place] * 2
        assert step.terminated.tolist() == [over and length == ends] * 2
        assert step.truncated.tolist() == [over and length != ends] * 2
        assert not step.reset.any()
        if over:
            assert step.final_obs.tolist() == [[length, name] for _, name in obs.tolist()]
            assert step.obs[:, 0].tolist() == [0, 0]
            assert (step.obs[:, 1] != obs[:, 1]).all()  # another episode
        else:
            assert step.final_obs is None
            assert step.obs.tolist() == [[place, name] for _, name in obs.tolist()]
        obs = step.obs


def test_a_seed_says_everything():
    def play(seed):
        envs = TensorEnvs(Counting(2), 3)
        return [envs.reset(seed), *(envs.step(np.zeros(3, np.int64)).obs for _ in range(7))]

    assert np.array_equal(play(1), play(1))
    assert not np.array_equal(play(1), play(2))


@pytest.fixture
def counting(wired, monkeypatch):
    monkeypatch.setattr("dqn.envs.tensor.grids.Catch", Counting)

    def make(*overrides):
        return wired("env=tensor_catch", "env.num_envs=3", "steps=300", "learning_starts=30", "replay.capacity=200",
                     "tuned.batch_size=8", "torso.hidden=[8]", *overrides).trainer  # fmt: skip

    return make


def test_rows_of_the_collector_are_the_stream_as_it_happened(counting):
    trainer = counting("+env.world.ends=3", "steps=60", "learning_starts=1000")
    trainer.run()
    ring = trainer.memory.ring
    for env in range(3):
        rows = int(ring.written[env])
        assert rows == 20 + 6  # each end takes a row for what was seen last
        steps, done = ring.obs[:rows, env, 0].tolist(), ring.terminated[:rows, env].tolist()
        assert steps == [0, 1, 2, 3] * 6 + [0, 1]
        assert done == [False, False, True, False] * 6 + [False, False]
        assert ring.reset[:rows, env].tolist() == [False, False, False, True] * 6 + [False, False]
        assert ring.reward[:rows, env].tolist() == [1, 2, 3, 0] * 6 + [1, 2]
    assert [*trainer.meter.recent] == [6.0] * 18


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("core", ["none", "gru"])
def test_interrupted_is_never_interrupted(counting, recorded, core, recorded_only):
    own = [f"execution={'compile' if recorded else 'eager'}", f"core={core}"]
    own += ["algorithm=drqn", "replay.length=4", "core.hidden=4"] if core == "gru" else []
    whole, first, second = (counting(*own) for _ in range(3))
    whole.run()
    first.times = replace(first.times, steps=150)
    first.run()
    [*second.restore(Checkpoints(first.directory / "checkpoints").load())]
    second.run()
    mine, theirs = second.learner.state(), whole.learner.state()
    assert [k for k in mine if not torch.equal(mine[k], theirs[k])] == []
    assert whole.updates > 20


def trained(wired, world, *overrides):
    images = len(parts.environments(configure(f"env={world}")).spec.obs_shape) == 3
    trainer = wired(f"env={world}", "env.num_envs=2", "steps=60", "learning_starts=20", "optimizer=sgd",
                    "optimizer.lr=0.01", "tuned.batch_size=4", "replay.capacity=100",
                    *(["torso=minatar_cnn"] if images else ["torso.hidden=[8]"]), *overrides).trainer  # fmt: skip
    trainer.run()
    return {name: x.cpu() for name, x in trainer.learner.state().items()}


@pytest.mark.parametrize("world", WORLDS)
def test_every_world_trains_recorded_as_written(world, wired, recorded_only):
    mine, theirs = (trained(wired, world, f"execution={engine}") for engine in ("eager", "compile"))
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("world", some(WORLDS, ["tensor_cartpole", "tensor_breakout"]))
def test_every_world_trains_captured_as_written(world, wired, caplog):
    mine, theirs = (trained(wired, world, f"execution={e}", "device=cuda") for e in ("eager", "cudagraph"))
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5)
    assert [r.message for r in caplog.records if "Falling back" in r.message] == []


@pytest.mark.gpu
@pytest.mark.parametrize("recipe", ["dqn", "pqn", "rainbow"])
@pytest.mark.parametrize("execution", mostly_slow(["eager", "cudagraph"], ["cudagraph"]))
def test_nothing_leaves_the_gpu_between_two_lines_of_the_log(wired, recipe, execution, monkeypatch):
    small = ["passes.minibatches=4"] if recipe == "pqn" else ["learning_starts=20", "train_every=20"]
    trainer = wired(f"algorithm={recipe}", "env=tensor_cartpole", "device=cuda", f"execution={execution}", "steps=800",
                    "env.num_envs=4", "torso.hidden=[8]", *small).trainer  # fmt: skip
    whole = trainer.times
    trainer.times = replace(whole, steps=400)
    trainer.run()
    trainer.times = whole
    before, ended = trainer.updates, len(trainer.meter.recent)
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "write_log", lambda: None)
        patch.setattr(trainer, "checkpoint", lambda: None)
        torch.cuda.set_sync_debug_mode("error")
        try:
            trainer.run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert trainer.updates > before and len(trainer.meter.recent) == ended
    trainer.write_log()
    assert len(trainer.meter.recent) > ended
    if execution == "cudagraph":  # acting and stepping, and the writing of what came of it
        for step in (trainer.collector.program, trainer.memory.ring.write_program):
            assert any(found.graph is not None for found in step.ready.values())
