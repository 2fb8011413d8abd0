"""A trained agent in a program of one's own acts as the run's evaluation does."""

import numpy as np
import pytest
from conftest import configure, world

import dqn
from dqn.config.resume import stored_text
from dqn.errors import UsageError
from dqn.seeding import stream

MASKED = world("test/Masked-v0")
RECURRENT = [
    "env=tmaze",
    "algorithm=r2d2",
    "replay.length=6",
    "replay.burn_in=2",
    "replay.batch_size=4",
    "core.hidden=8",
]


def played(agent, env, seed):
    """The return of one episode, and how often q and act agreed."""
    obs, info = env.reset(seed=seed)
    agent.begin()
    total, over = 0.0, False
    while not over:
        mask = info.get("action_mask")
        q = agent.q(obs, mask)
        action = agent.act(obs, mask)
        assert env.action_space.contains(np.int64(action))
        assert q.argmax() == action - getattr(env.action_space, "start", 0)
        obs, reward, terminated, truncated, info = env.step(action)
        total, over = total + float(reward), terminated or truncated
    return total


@pytest.mark.parametrize("overrides", [["env=cartpole"], ["env=chain"], MASKED, RECURRENT])
def test_an_agent_acts_as_the_evaluation_does(wired, overrides):
    run = wired(*overrides, "steps=400", "learning_starts=100", "torso.hidden=[16]", "env.num_envs=2")
    run.trainer.run()
    (run.trainer.directory / "config.yaml").write_text(saved(overrides))
    agent = dqn.load(str(run.trainer.directory), trust=["worlds"])
    for name, parameter in agent.network.state_dict().items():
        assert np.array_equal(parameter, run.trainer.learner.online.state_dict()[name])
    env = agent.make()
    run.trainer.learner.online.eval()
    (score,) = run.trainer.evaluate(1)["returns"]
    assert played(agent, env, stream(0, "evaluation")) == score
    for seed in (3, 4):
        first = played(agent, env, seed)
        assert played(agent, env, seed) == first
    env.close()


def saved(overrides):
    return stored_text(configure(*overrides, "torso.hidden=[16]", "env.num_envs=2"))


def test_an_agent_of_a_tensor_world_sees_what_it_shows(wired):
    overrides = ["env=tensor_catch", "env.num_envs=2"]
    run = wired(*overrides, "steps=100", "learning_starts=50", "torso.hidden=[16]")
    run.trainer.run()
    (run.trainer.directory / "config.yaml").write_text(saved(overrides))
    agent = dqn.load(str(run.trainer.directory), trust=["worlds"])
    obs = run.trainer.collector.obs[0].numpy()
    assert agent.act(obs) == agent.q(obs).argmax()
    with pytest.raises(UsageError, match="no single Gymnasium environment"):
        agent.make()


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match="is not a run's directory"):
        dqn.load(str(tmp_path))
