import re
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary
from worlds import Counting

from dqn.envs.make import make
from dqn.envs.spaces import misfit
from dqn.envs.vector_of_one import Alone
from dqn.envs.wrappers import EnvironmentFailure
from dqn.errors import UsageError
from dqn.tracking.evaluation import play
from dqn.types import Step


def test_environments_of_one_vector_begin_differently():
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
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(kwargs, says):
    with pytest.raises(UsageError, match=says) as error:
        make(**kwargs)
    assert "\n" not in str(error.value)


def test_an_environment_that_raises_says_which_and_when():
    envs = make("test/Raising-v0", 2, kwargs={"at": 5})
    envs.reset(seed=0)
    with pytest.raises(
        EnvironmentFailure,
        match=r"environment 0 \(test/Raising-v0\) raised ZeroDivisionError at its step 5: the world broke",
    ):
        for _ in range(9):
            envs.step(np.zeros(2, np.int64))


def test_async_a_run_ends_soon_without_orphans(tmp_path):
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


@pytest.mark.parametrize(
    ("space", "obs", "wrong"),
    [
        (Box(0, 255, (2,), np.uint8), np.array([0.5, 1.0]), "float64 (2,) is not uint8"),
        (Box(0, 255, (2,), np.uint8), [3, 300], "is not uint8"),
        (Box(0, 255, (2,), np.uint8), [3, 255], ""),
        (Box(0, 1, (2,), bool), np.array([0.5, 1.0]), "is not bool"),
        (Box(0, 1, (2,), bool), [0, 1], ""),
        (Box(-1, 1, (2,), np.float32), np.zeros(3), "has shape (2,)"),
        (Box(-1, 1, (2,), np.float32), 0.0, "has shape (2,)"),
        (Box(-1, 1, (2,), np.float32), None, "has shape (2,)"),
        (Box(-1, 1, (2,), np.float32), (5, 9), ""),
        (Box(-1, 1, (), np.float32), 3.0, ""),
        (Box(-1, 1, (2,), np.float32), [0.5, np.nan], "nan at [1], which is not finite"),
        (Box(-1, 1, (2,), np.float32), [[0.5], [1, 2]], "list is no array"),
        (
            Dict({"a": Discrete(2), "b": Box(0, 1, (2, 2))}),
            {"a": 1, "b": np.full((2, 2), -np.inf)},
            "b: -inf at [0, 0]",
        ),
        (Box(-1, 1, (2,), np.float32), np.full(2, 3e38, np.float32), ""),
        (Discrete(4, start=2), 5, ""),
        (Discrete(4, start=2), np.int32(6), "is none of Discrete(4, start=2)"),
        (Discrete(4), 1.0, "is none of Discrete(4)"),
        (Discrete(4), -1, "is none of Discrete(4)"),
        (MultiBinary(2), np.array([True, False]), ""),
        (Dict({"a": Discrete(2), "b": Dict({"c": Box(0, 1, (1,))})}), {"a": 1, "b": {"c": [0.5]}, "more": 1}, ""),
        (Dict({"a": Discrete(2), "b": Dict({"c": Box(0, 1, (1,))})}), {"a": 1, "b": {"c": [1, 2]}}, "b: c: int64 (2,)"),
        (Dict({"a": Discrete(2)}), {"b": 1}, "a Dict of a was expected, not dict of b"),
        (Dict({"a": Discrete(2)}), 3, "a Dict of a was expected"),
    ],
)
def test_what_a_space_does_not_hold_is_told_in_words(space, obs, wrong):
    found = misfit(space, obs)
    assert (wrong in found) if wrong else not found


@pytest.mark.parametrize("autoreset", ["next_step", "same_step", "disabled"])
@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize("episode_info", ["array", "mixed"])
def test_what_is_told_beside_may_be_anything(episode_info, num_envs, autoreset):
    envs = make("test/Odd-v0", num_envs, autoreset=autoreset, kwargs={"episode_info": episode_info, "reward": "array"})
    envs.reset(0)
    for _ in range(10):
        assert envs.step(np.zeros(num_envs, np.int64)).reward.shape == (num_envs,)
    envs.close()


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"reward": "word"}, "gave a reward that is no number at its step 1: array('much'"),
        ({"shown": 7}, "showed what its observation space does not hold at its step 1: int64 ()"),
        ({"episode_info": "mask"}, "gave an info['action_mask'] at a step and none at its first reset"),
    ],
)
@pytest.mark.parametrize("one", [True, False])
def test_what_cannot_be_stored_ends_the_run_in_one_sentence(kwargs, says, one):
    envs = make("test/Odd-v0", 1 if one else 2, kwargs=kwargs)
    envs = Alone(envs.envs, "auto") if one else envs
    envs.reset(0)
    with pytest.raises(EnvironmentFailure, match=re.escape(says)):
        envs.step(np.zeros(envs.num_envs, np.int64))
    if "episode_info" in kwargs:
        silent = make("test/Odd-v0", 1, kwargs=kwargs, action_mask="none")
        silent.reset(0)
        silent.step(np.zeros(1, np.int64))


def test_an_environment_that_cannot_be_made_or_closed(caplog):
    with pytest.raises(UsageError, match=r"test/Odd-v0 cannot be made \(RuntimeError: no data here\)"):
        make("test/Odd-v0", kwargs={"raises": "made"})
    with pytest.raises(UsageError, match=r"a process of test/Odd-v0 died as its environment was made"):
        make("test/Odd-v0", 2, vectorization="async", imports=["worlds"], kwargs={"raises": "made elsewhere"})
    make("test/Odd-v0", kwargs={"raises": "closed"}).close()
    assert "raised OSError as it was closed: no way back" in caplog.text


def test_a_worker_that_dies_is_one_sentence_and_the_others_are_ended():
    envs = make("test/Odd-v0", 2, vectorization="async", imports=["worlds"], kwargs={"die_at": 3})
    envs.reset(0)
    with pytest.raises(EnvironmentFailure, match=r"a process of test/Odd-v0 died"):
        for _ in range(5):
            envs.step(np.zeros(2, np.int64))
    envs.close()
    assert not any(process.is_alive() for process in envs.envs.processes)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="signals that a process ignores are read in /proc")
def test_workers_never_hear_a_signal_and_whoever_started_them_still_does():
    """A terminal's Ctrl-C reaches every process; the workers are needed for the run's checkpoint."""
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    envs = make("test/Odd-v0", 2, vectorization="async", imports=["worlds"])
    with closing(envs):
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
        for process in envs.envs.processes:
            status = Path(f"/proc/{process.pid}/status").read_text()
            blocked = int(re.search(r"SigBlk:\s*(\w+)", status)[1], 16)
            assert blocked >> (signal.SIGINT - 1) & 1
            assert blocked >> (signal.SIGTERM - 1) & 1


def test_workers_that_nobody_closed_end_with_the_run(tmp_path):
    """As where a part is refused when the workers are already there."""
    run = subprocess.run(
        [sys.executable, "-m", "dqn.train", "env=cartpole", "env.num_envs=2", "env.vectorization=async",
         "lambda_=0.5", f"run.dir={tmp_path}/run"],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert run.returncode == 2
    assert "set replay.length above 1" in run.stderr


def test_a_capped_evaluation_ends_where_a_vector_class_does_not():
    """Its environments cannot be reset one by one: what is capped counts as it is, and plays no more."""

    class Endless:
        num_envs, began = 2, 0

        def reset(self, seed):
            self.ticks = 0
            return np.zeros((2, 1))

        def step(self, action):
            self.ticks += 1
            ends = np.array([self.ticks % 3 == 0, False])
            no = np.zeros(2, bool)
            return Step(np.zeros((2, 1)), np.ones(2), ends, no, no, np.zeros((2, 1)))

    class Idle:
        act = staticmethod(lambda obs, now: np.zeros(2, np.int64))
        forget = staticmethod(lambda begins: None)

    result = play(Idle, Endless(), 6, 0, cap=7)
    assert result["returns"] == [3.0, 7.0, 3.0, 3.0]
    assert result["lengths"] == [3, 7, 3, 3]
    asked = []
    assert play(Idle, Endless(), 6, 0, stop=lambda: len(asked) > 3 or asked.append(0))["lengths"] == [3]
