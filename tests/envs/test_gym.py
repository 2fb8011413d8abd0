import subprocess
import sys
import time
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Discrete
from worlds import Counting

from dqn.envs.gym import EnvironmentFailure, make
from dqn.types import UsageError


def test_a26_environments_of_one_vector_begin_differently():
    envs = make("CartPole-v1", 4)
    obs = envs.reset(seed=3)
    assert len({tuple(row) for row in obs.tolist()}) == 4
    assert np.array_equal(obs, envs.reset(seed=3))


@pytest.mark.parametrize("vectorization", ["sync", "async", "vector_entry_point"])
def test_every_vectorization_plays_cartpole(vectorization):
    envs = make("CartPole-v1", 2, vectorization)
    obs = envs.reset(seed=0)
    ends = 0
    for _ in range(60):
        step = envs.step(np.zeros(2, np.int64))
        ends += int(step.terminated.sum())
        assert step.obs.dtype == obs.dtype == np.float32
        assert step.obs.shape == (2, 4)
    envs.close()
    assert ends >= 8


@pytest.mark.parametrize("mode", ["next_step", "same_step", "disabled"])
def test_discrete_spaces_that_start_elsewhere_are_shifted(mode):
    class Shifted(Counting):
        observation_space, action_space = Discrete(9, start=4), Discrete(2, start=-1)
        actions = ()

        def _obs(self):
            return 4 + self.step_

        def step(self, action):
            self.actions = (*self.actions, int(action))
            self.step_ += 1
            return 4 + self.step_, 0.0, self.step_ == 3, False, {}

    gymnasium.register(f"test/Shifted-{mode}-v0", entry_point=Shifted)
    envs = make(f"test/Shifted-{mode}-v0", autoreset=mode)
    assert envs.spec.states == 9
    assert envs.reset(0).tolist() == [0]
    steps = [envs.step(np.array([1])) for _ in range(3)]
    assert envs.envs.envs[0].unwrapped.actions == (0, 0, 0)
    last = steps[-1]
    assert (last.final_obs if last.final_obs is not None else last.obs).tolist() == [3]


def test_observations_of_other_kinds_are_flattened():
    envs = make("Blackjack-v1", 2)
    assert envs.reset(0).shape == (2, *envs.spec.obs_shape)
    assert envs.spec.obs_dtype == np.float32


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"id": "Pendulum-v1"}, "continuous actions"),
        ({"id": "Nope-v0"}, "Nope"),
        ({"id": "nowhere:Nope-v0"}, "nowhere"),
        ({"id": "CartPole-v1", "imports": ["no_such_package"]}, "no_such_package"),
        ({"id": "CartPole-v1", "kwargs": {"wings": 2}}, "wings"),
        ({"id": "CartPole-v1", "num_envs": 0}, "num_envs"),
        ({"id": "CartPole-v1", "vectorization": "threads"}, "vectorization"),
        ({"id": "CartPole-v1", "autoreset": "never"}, "autoreset"),
        ({"id": "test/FloatImage-v0"}, "uint8"),
    ],
)
def test_b6_what_cannot_be_used_is_refused_in_one_sentence(kwargs, says):
    with pytest.raises(UsageError, match=says) as error:
        make(**kwargs)
    assert "\n" not in str(error.value)


def test_b7_an_environment_that_raises_says_which_and_when():
    envs = make("test/Raising-v0", 2, kwargs={"at": 5})
    envs.reset(seed=0)
    with pytest.raises(
        EnvironmentFailure,
        match=r"environment 0 \(test/Raising-v0\) raised ZeroDivisionError at its step 5: the world broke",
    ):
        for _ in range(9):
            envs.step(np.zeros(2, np.int64))


def test_b7_async_a_run_ends_soon_without_orphans(tmp_path):
    start = time.monotonic()
    run = subprocess.run(
        [sys.executable, "-m", "dqn.train", "env=gym", "env.id=test/Raising-v0", "env.imports=[worlds]",
         "env.num_envs=2", "env.vectorization=async", "+env.kwargs.at=40", f"run.dir={tmp_path}/run", "steps=1000"],
        cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert run.returncode == 1
    assert "raised ZeroDivisionError at its step 40: the world broke" in run.stderr
    assert "Traceback" in (tmp_path / "run" / "train.log").read_text()  # for whoever wrote the environment
    assert time.monotonic() - start < 60  # with imports in three processes
    left = subprocess.run(["pgrep", "-f", f"{tmp_path}/run"], capture_output=True, text=True, check=False).stdout
    assert left == ""


def test_q_star_is_found_through_the_wrappers():
    assert make("dqn/Chain-v0", imports=["dqn.envs"]).optimal_q(0.9).shape == (10, 2)
    assert make("CartPole-v1").optimal_q(0.9) is None
    assert make("dqn/Chain-v0", imports=["dqn.envs"]).optimal_q(1.0) is None
