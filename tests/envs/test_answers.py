"""What environments answer: in the form of Gymnasium's API, and finite, or the run ends with a sentence."""

import re
from contextlib import closing

import gymnasium
import numpy as np
import pytest
from conftest import configure, world

from dqn.config import parts
from dqn.envs.make import make
from dqn.envs.wrappers import EnvironmentFailure

STEP = "step must return five values (obs, reward, terminated, truncated, info)"
RESET = "reset must return two values (obs, info)"
STACKED = {"stack": lambda env: gymnasium.wrappers.FrameStackObservation(env, 2)}


class Unpacking(gymnasium.Wrapper):
    """A wrapper of one's own, which takes apart what it is given."""

    def reset(self, **kwargs):
        obs, info = self.env.reset(**kwargs)
        return obs * 1, info

    def step(self, action):
        obs, reward, terminated, truncated, info = self.env.step(action)
        return obs, reward, terminated, truncated, info


WRAPPED = {"own": Unpacking}


def failure(envs, ticks=1):
    """The sentence with which a few steps end."""
    with closing(envs), pytest.raises(EnvironmentFailure) as error:
        envs.reset(0)
        for _ in range(ticks):
            envs.step(np.zeros(envs.num_envs, np.int64))
    sentence = str(error.value)
    assert "\n" not in sentence
    return sentence


@pytest.mark.parametrize("num_envs", [1, 2])
@pytest.mark.parametrize("limit", [None, 9])
@pytest.mark.parametrize("wrappers", [{}, WRAPPED, STACKED], ids=["bare", "own", "gymnasium"])
@pytest.mark.parametrize("answer", [0, 4, 5, 6])
def test_a_step_of_the_old_api_is_one_sentence(answer, wrappers, limit, num_envs):
    options = {"kwargs": {"answer": answer}, "max_episode_steps": limit, "wrappers": wrappers}
    sentence = failure(make("test/OldStep-v0", num_envs, **options))
    assert f"environment 0 (test/OldStep-v0) answers as no Gymnasium environment does at its step 1: {STEP}" in sentence


@pytest.mark.parametrize("wrappers", [{}, WRAPPED, STACKED], ids=["bare", "own", "gymnasium"])
@pytest.mark.parametrize("limit", [None, 9])
@pytest.mark.parametrize("kwargs", [{"size": 2}, {"size": 3}, {"size": 1}, {"as_dict": True}], ids=str)
def test_a_reset_of_the_old_api_is_one_sentence(kwargs, limit, wrappers):
    """An observation of two numbers, or a Dict of two entries, could be taken apart as if it were (obs, info)."""
    if "as_dict" in kwargs and wrappers:
        pytest.skip("these wrappers take arrays")
    options = {"kwargs": kwargs, "max_episode_steps": limit, "wrappers": wrappers, "action_mask": "none"}
    sentence = failure(make("test/OldReset-v0", **options))
    assert "environment 0 (test/OldReset-v0) answers as no Gymnasium environment does at its step 0: " in sentence
    assert RESET in sentence


def test_a_reset_that_takes_no_seed_is_one_sentence():
    sentence = failure(make("test/OldSeed-v0", action_mask="none"))
    assert "reset must take what Gymnasium gives it: def reset(self, *, seed=None, options=None)" in sentence


@pytest.mark.parametrize(("old", "says"), [("step", STEP), ("reset", RESET)])
def test_a_vector_class_of_the_old_api_is_one_sentence(old, says):
    envs = make("test/OldStep-v0", 2, "vector_entry_point", kwargs={"old": old}, action_mask="none")
    assert f"the vector class of test/OldStep-v0 cannot be used: {says}" in failure(envs)


def test_an_error_of_the_environments_own_is_told_as_it_is():
    class Own(gymnasium.Env):
        observation_space, action_space = gymnasium.spaces.Discrete(2), gymnasium.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            return 0, {}

        def step(self, action):
            one, two = (1, 2, 3)
            return one, two

    gymnasium.register("test/Own-v0", entry_point=Own)
    sentence = failure(make("test/Own-v0"))
    assert "raised ValueError at its step 1: too many values to unpack" in sentence
    assert "must return" not in sentence


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e300"])
@pytest.mark.parametrize("num_envs", [1, 3])
def test_a_reward_that_is_not_finite_says_where(num_envs, value):
    kwargs = {"value": value, "lengths": [3]}
    envs = parts.environments(configure(*world("test/Unlearnable-v0"), f"env.num_envs={num_envs}",
                                        *(f"+env.kwargs.{k}={v}" for k, v in kwargs.items())))  # fmt: skip
    assert (type(envs).__name__ == "Alone") == (num_envs == 1)
    says = (
        "environment 0 (test/Unlearnable-v0) gave a reward that is not finite, or too large for float32, at its step 5"
    )
    assert f"{says}: {float(value)}" in failure(envs, 9)


@pytest.mark.parametrize("autoreset", ["same_step", "next_step", "disabled"])
@pytest.mark.parametrize("ends", [1, 5, 9])
@pytest.mark.parametrize("value", ["nan", "-inf"])
@pytest.mark.parametrize("form", [{"shape": (3,)}, {"shape": (40,)}, {"shape": (4, 5, 5)}, {"as_dict": True}], ids=str)
def test_an_observation_that_is_not_finite_says_where(form, value, ends, autoreset):
    kwargs = {"what": "observation", "value": value, "lengths": (ends,), **form}
    sentence = failure(make("test/Unlearnable-v0", 2, autoreset=autoreset, kwargs=kwargs), 12)
    assert sentence.startswith("environment 0 (test/Unlearnable-v0) showed ")
    index = r"\[2\]" if form.get("shape") == (3,) or "as_dict" in form else r"\[[0-9, ]*\]"
    assert re.search(rf" at its step 5: {'where: ' if 'as_dict' in form else ''}{value} at {index}", sentence)


@pytest.mark.parametrize(("what", "says"), [("reward", "gave a reward"), ("observation", "showed an observation")])
def test_a_vector_class_of_its_own_is_looked_at_too(what, says):
    envs = make("test/Unlearnable-v0", 3, "vector_entry_point", kwargs={"what": what, "at": 4})
    sentence = failure(envs, 9)
    assert sentence.startswith(
        f"environment 2 (test/Unlearnable-v0) {says} that no network can learn from at its step 4"
    )
    assert "nan at [2" in sentence


def test_async_environments_say_it_as_well_and_nothing_stands_before_it(recwarn, caplog, capfd):
    """Gymnasium prints a coloured traceback of every worker that fails; it belongs into the log."""
    options = {"imports": ["worlds"], "kwargs": {"at": 2}}
    with caplog.at_level("DEBUG", "dqn"):
        assert "at its step 2: nan" in failure(make("test/Unlearnable-v0", 2, "async", **options), 3)
    assert not recwarn.list
    assert capfd.readouterr() == ("", "")
    assert "Traceback" in caplog.text
