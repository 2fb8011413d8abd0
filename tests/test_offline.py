"""Learning from recorded data alone, here from another run's replay memory; tests/replay has Minari's files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import build, configure, world

from dqn.errors import UsageError
from dqn.seeding import parameter_hash
from dqn.tracking.checkpoint import Checkpoints

ROOT = Path(__file__).parents[1]
OFFLINE = ["algorithm=cql", "env=cartpole", "torso.hidden=[16]", "replay.batch_size=16", "tracking.log_every=50"]


@pytest.fixture
def played(wired):
    """The directory of a finished run on CartPole, and its trainer."""
    run = wired("steps=600", "n_step=1", "learning_starts=100", "env.num_envs=3", "tracking.checkpoint_every=200")
    run.trainer.run()
    return run.trainer


def rows(ring):
    """Every transition of a ring: (obs, action, reward, terminated, next obs), as a multiset."""
    found = []
    for e in range(ring.num_envs):
        for k in range(int(ring.evicted[e]), int(ring.added[e])):
            t = int(ring.starts[k % ring.rows, e])
            here, behind = t % ring.rows, (t + 1) % ring.rows
            found.append((*ring.obs[here, e].tolist(), int(ring.action[here, e]), float(ring.reward[here, e]),
                          bool(ring.terminated[here, e]), *ring.obs[behind, e].tolist()))  # fmt: skip
    return sorted(found)


def test_the_dataset_is_what_the_run_kept(wired, played):
    run = wired(*OFFLINE, f"replay.path={played.directory}", "n_step=1", "steps=10")
    assert rows(run.trainer.memory.ring) == rows(played.memory.ring)


def test_the_largest_reward_is_that_of_the_data(wired, played):
    """Or every run would be said to overestimate."""
    assert wired(*OFFLINE, f"replay.path={played.directory}").trainer.meter.largest_reward == 1.0


@pytest.mark.parametrize("n_step", [1, 10, 1000])
def test_every_decision_is_a_start_however_long_returns_are(wired, played, n_step):
    """Behind the last episode nothing comes: its returns end with it."""
    run = wired(*OFFLINE, f"replay.path={played.directory}", f"n_step={n_step}", "steps=10")
    ring = run.trainer.memory.ring
    assert len(ring) == int((~ring.reset[: int(ring.written)]).sum()) == len(played.memory.ring)
    run.trainer.run()
    assert run.trainer.updates > 0


def test_offline_training_plays_nothing_and_evaluates(wired, played):
    run = wired(*OFFLINE, f"replay.path={played.directory}", "steps=150", "tracking.evaluate_every=50")
    trainer, before = run.trainer, run.trainer.memory.ring.written.clone()
    played_in, evaluated = trainer.collector.envs, []
    played_in.step = played_in.reset = lambda *a: pytest.fail("nothing is to be played")
    evaluate = trainer.evaluate

    def noted(*given, **named):
        evaluated.append(trainer.env_steps)
        return evaluate(1)

    noted.training, noted.close = evaluate.training, evaluate.close
    trainer.evaluate = noted
    trainer.run()
    assert (trainer.env_steps, trainer.updates) == (150, 150)
    assert evaluated == [0, 50, 100]
    assert torch.equal(trainer.memory.ring.written, before)


def test_an_offline_run_is_resumed_from_anywhere(tmp_path, played):
    def train(place, *arguments):
        done = subprocess.run([sys.executable, "-m", "dqn.train", *arguments], cwd=place, text=True, check=False,
                              capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
        assert done.returncode == 0, done.stderr

    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "recorded").symlink_to(played.directory)
    short = ["tracking.final_episodes=1", "tracking.evaluate_every=0"]
    train(tmp_path / "here", *OFFLINE, *short, "replay.path=recorded", "steps=50", "run.dir=learnt")
    train(tmp_path, "resume=here/learnt", "steps=60")
    assert json.loads((tmp_path / "here" / "learnt" / "result.json").read_text())["env_steps"] == 60


def test_an_offline_run_resumes_exactly(tmp_path, played):
    def make(name, steps):
        (tmp_path / name).mkdir(exist_ok=True)
        overrides = [*OFFLINE, f"replay.path={played.directory}", f"steps={steps}", "tracking.checkpoint_every=40"]
        return build.run(configure(*overrides), tmp_path / name).trainer

    straight, broken = make("straight", 120), make("broken", 70)
    straight.run()
    broken.run()
    resumed = make("broken", 120)
    assert [*resumed.restore(Checkpoints(tmp_path / "broken" / "checkpoints").load())]
    resumed.run()
    assert parameter_hash(resumed.learner.state()) == parameter_hash(straight.learner.state())


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["replay.path=/nowhere/at/all"], "minari"),
        ([*world("test/Counting-v0"), "replay.path={played}"], "choose the environment"),
        (["core=lstm", "replay.path={played}"], "choose core=none"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused(wired, played, overrides, says):
    given = [o.replace("{played}", str(played.directory)) for o in overrides]
    with pytest.raises(UsageError, match=says):
        wired(*OFFLINE, *given)


@pytest.mark.parametrize("other", ["+env.kwargs.states=20", "+env.kwargs.actions=2"])
def test_data_of_another_world_is_refused(wired, other):
    """Which has the same shape: state numbers, and too many of them, or of actions."""
    played = wired("env=mdp1000", "steps=600", "learning_starts=700")
    played.trainer.run()
    with pytest.raises(UsageError, match="choose the environment that it was recorded in"):
        wired("algorithm=cql", "env=mdp1000", other, f"replay.path={played.trainer.directory}")
