import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from oracles import q_table

import dqn.envs  # noqa: F401
from dqn.envs.tabular import Chain, RandomMDP, value_iteration
from dqn.types import UsageError


@pytest.mark.parametrize("name", ["dqn/RandomMDP-v0", "dqn/Chain-v0"])
def test_the_worlds_pass_gymnasiums_checker_and_end_by_truncation(name):
    env = gymnasium.make(name)
    check_env(env.unwrapped, skip_render_check=True)
    env.reset(seed=0)
    ends = [env.step(0)[2:4] for _ in range(env.spec.max_episode_steps)]
    assert ends[-1] == (False, True)
    assert not any(map(any, ends[:-1]))


def test_default_sizes_are_the_articles():
    assert RandomMDP().reward.shape == (1000, 4)
    assert Chain().reward.shape == (10, 2)


@pytest.mark.parametrize("world", [RandomMDP(7, 3, 2), Chain(5, slip=0.2)])
def test_q_star_equals_value_iteration_by_loops(world):
    want = q_table.value_iteration(world.successor.tolist(), world.probability.tolist(), world.reward.tolist(), 0.9)
    assert np.allclose(world.optimal_q(0.9), want, atol=1e-8)


def test_final_states_are_worth_nothing():
    world = RandomMDP(6, 2, 3, final=2)
    q = world.optimal_q(0.9)
    assert np.isnan(q[4:]).all()
    only_final = (world.successor >= 4).all(-1)
    assert np.allclose(q[:4][only_final[:4]], world.reward[:4][only_final[:4]])
    world.reset(seed=0)
    ends = [(world.state >= 4) == world.step(0)[2] or world.reset() for _ in range(30) if world.state < 4]
    assert ends


def test_the_dynamics_are_the_tables():
    world = RandomMDP(5, 2, 3, world_seed=1)
    world.reset(seed=0)
    counts = np.zeros(5)
    for _ in range(20_000):
        world.state = 2
        state, reward, *_ = world.step(1)
        counts[state] += 1
    want = np.zeros(5)
    want[world.successor[2, 1]] = world.probability[2, 1]
    assert np.abs(counts / 20_000 - want).max() < 0.02
    assert reward == world.reward[2, 1]


def test_chain_walks_left_and_right_between_walls():
    world = Chain(4)
    world.reset(seed=0)
    world.state = 0
    assert [world.step(a)[0] for a in (0, 1, 1, 1, 1, 0)] == [0, 1, 2, 3, 3, 2]


def test_bad_worlds_are_refused():
    for bad in (lambda: RandomMDP(3, 2, 4), lambda: RandomMDP(0), lambda: RandomMDP(3, 2, 2, final=3), lambda: Chain(1),
                lambda: Chain(5, slip=2),
                lambda: value_iteration(*[np.zeros((1, 1, 1))] * 2, np.zeros((1, 1)), 1.0)):  # fmt: skip
        with pytest.raises(UsageError):
            bad()
