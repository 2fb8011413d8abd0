"""One environment without the vector class is that environment within it."""

import numpy as np
import pytest
from conftest import configure, world

from dqn.config import parts
from dqn.envs.make import make
from dqn.envs.vector_of_one import Alone

WORLDS = [
    {"id": "CartPole-v1"},
    {"id": "test/Counting-v0", "imports": ["worlds"], "kwargs": {"lengths": [3, 1, 2]}},
    {"id": "test/Counting-v0", "imports": ["worlds"], "kwargs": {"ending": "truncated"}},
    {"id": "test/Counting-v0", "imports": ["worlds"], "kwargs": {"ending": "both"}},
    {"id": "test/OneState-v0", "imports": ["worlds"], "max_episode_steps": 4},
    {"id": "dqn/Chain-v0", "imports": ["dqn.envs"]},
]


@pytest.mark.parametrize("options", WORLDS, ids=lambda o: f"{o['id']}-{o.get('kwargs', '')}")
def test_steps_are_those_of_the_vector_class(options):
    many, alone = make(**options), Alone(make(**options).envs)
    random = np.random.default_rng(0)
    assert np.array_equal(many.reset(7), alone.reset(7))
    ends = 0
    for _ in range(300):
        action = random.integers(many.spec.num_actions, size=1)
        one, other = many.step(action), alone.step(action)
        ends += one.final_obs is not None
        for name, value in vars(one).items():
            mine = getattr(other, name)
            assert (value is None) == (mine is None), name
            if value is not None:
                assert value.dtype == mine.dtype and np.array_equal(value, mine), name
    assert ends > 5


@pytest.mark.parametrize(
    ("overrides", "alone"),
    [
        (["env=cartpole"], True), (["env=cartpole", "env.num_envs=2"], False),
        (["env=cartpole", "env.autoreset=next_step"], False), (["env=cartpole", "env.vectorization=async"], False),
        (world("test/Masked-v0"), False),
    ],
)  # fmt: skip
def test_alone_is_used_where_nothing_is_left_out(overrides, alone):
    envs = parts.environments(configure(*overrides, *([] if "env.num_envs=2" in overrides else ["env.num_envs=1"])))
    assert isinstance(envs, Alone) == alone
    envs.close()
