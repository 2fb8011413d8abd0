"""Wrappers around each environment: what they show reaches the agent, whatever ends an episode."""

from itertools import product

import gymnasium
import numpy as np
import pytest
from conftest import configure, seen, world
from gymnasium.spaces import MultiDiscrete
from worlds import Counting

from dqn.config import parts
from dqn.envs.make import make
from dqn.envs.wrappers import LastStep
from dqn.errors import UsageError

MODES = ["next_step", "same_step", "disabled"]
LAST = {"last_step": LastStep}


class Two(Counting):
    """Counting with two actions at once."""

    action_space = MultiDiscrete([3, 2])

    def step(self, action):
        self.said = np.array(action)
        return super().step(action[0])


gymnasium.register("test/Two-v0", entry_point=Two)


@pytest.mark.parametrize(
    ("num_envs", "vectorization", "mode", "ending"),
    [*product((1, 3), ("sync",), MODES, ("terminated", "truncated")), (2, "async", "same_step", "terminated")],
)
def test_the_last_action_and_reward_are_those_that_led_here(num_envs, vectorization, mode, ending):
    envs = make(
        "test/Counting-v0", num_envs, vectorization, mode, ["worlds"], {"lengths": (3, 2), "ending": ending},
        wrappers=LAST,
    )  # fmt: skip
    shown, rng = seen(envs, envs.reset(5)), np.random.default_rng(0)
    before, action, reward = np.zeros(num_envs, bool), np.zeros(num_envs, int), np.zeros(num_envs)
    ends = 0
    for _ in range(12):
        started = shown["observation"][:, 2] == 0
        assert (shown["last_action"] == np.where(started[:, None], 0, np.eye(3)[action])).all()
        assert (shown["last_reward"][:, 0] == np.where(started, 0, reward)).all()
        assert (shown["last_reward"][:, 0] == shown["observation"][:, 2]).all()  # its reward is its step
        action = rng.integers(0, 3, num_envs)
        step = envs.step(action)
        shown, reward, over = seen(envs, step.obs), step.reward, step.terminated | step.truncated
        before |= over
        if step.final_obs is not None:
            final = seen(envs, step.final_obs)
            assert (final["last_action"] == np.eye(3)[action])[over].all()
            assert (final["last_reward"][:, 0] == step.reward)[over].all()
            ends += over.sum()
    assert before.all()
    assert ends or mode == "next_step"
    envs.close()


def test_actions_that_are_no_numbers_are_shown_flattened():
    envs = make("test/Two-v0", kwargs={"lengths": (9,)}, wrappers=LAST)
    assert seen(envs, envs.reset(0))["last_action"].tolist() == [[0] * 5]
    assert seen(envs, envs.step(np.array([3])).obs)["last_action"].tolist() == [[0, 1, 0, 0, 1]]


@pytest.mark.parametrize("masked", [False, True])
def test_a_dict_and_its_mask_stay_what_they_are(masked):
    options = {"kwargs": {"lengths": (4,), "masked": masked}}
    plain, episode_info = make("test/DictImage-v0", **options), make("test/DictImage-v0", **options, wrappers=LAST)
    a, b = seen(plain, plain.reset(3)), seen(episode_info, episode_info.reset(3))
    assert episode_info.masked == masked
    assert {*b} - {*a} == {"last_action", "last_reward"}
    for _ in range(6):
        action = a["action_mask"].argmax(1) if masked else np.array([1])
        a, b = seen(plain, plain.step(action).obs), seen(episode_info, episode_info.step(action).obs)
        assert all((a[name] == b[name]).all() for name in a)


def test_gymnasiums_own_wrappers_are_named_on_the_command_line():
    stack = "+env.wrappers.stack={_target_: gymnasium.wrappers.FrameStackObservation, stack_size: 3}"
    envs = parts.environments(configure(*world("test/Counting-v0"), stack))
    assert envs.spec.obs_shape == (3, 3)
    envs.reset(0)
    assert envs.step(np.array([0])).obs[0, :, 2].tolist() == [0, 0, 1]


def test_a_wrapper_is_taken_away_with_null(wired):
    run = wired("algorithm=r2d2", "env=tmaze", "env.wrappers.last_step=null", "steps=100")
    assert not run.trainer.collector.envs.spec.parts


def test_q_that_depends_on_more_than_the_state_is_not_compared_with_the_state_s(wired):
    known = "env.wrappers.last_step=null"
    assert wired("algorithm=r2d2", "env=chain", known).trainer.evaluate.optimal is not None
    assert wired("algorithm=r2d2", "env=chain").trainer.evaluate.optimal is None


BAD = {
    "Tensor worlds take no wrappers: set env.wrappers.last_step=null.": ["algorithm=r2d2", "env=tensor_catch"],
    "set env.vectorization=sync or async, or env.wrappers.last_step=null": [
        "algorithm=r2d2", "env=cartpole", "env.vectorization=vector_entry_point",
    ],
    "env.wrappers.stack cannot be put around CartPole-v1": [
        "+env.wrappers.stack={_target_: gymnasium.wrappers.FrameStackObservation}",
    ],
    "env.wrappers.stack cannot be put around CartPole-v1 (The stack_size needs to be greater than zero": [
        "+env.wrappers.stack={_target_: gymnasium.wrappers.FrameStackObservation, stack_size: -1}",
    ],
}  # fmt: skip


@pytest.mark.parametrize("says", BAD)
def test_what_cannot_be_wrapped_is_refused_in_a_sentence(wired, says):
    with pytest.raises(UsageError) as error:
        wired(*BAD[says])
    assert says in str(error.value)
    assert "\n" not in str(error.value)
