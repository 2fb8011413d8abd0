import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import dqn.envs  # noqa: F401
from dqn.envs.memory_tasks import EAST, NORTH, SOUTH, WEST, TMaze
from dqn.errors import UsageError

CUES = {NORTH: [0, 1, 1], SOUTH: [1, 1, 0]}


def test_the_maze_passes_gymnasiums_checker():
    check_env(TMaze(), skip_render_check=True)


def test_the_cue_is_seen_at_the_start_and_nowhere_else():
    world = TMaze(4)
    goals = []
    for seed in range(40):
        obs = [world.reset(seed=seed)[0].tolist()] + [world.step(EAST)[0].tolist() for _ in range(4)]
        assert obs == [CUES[world.goal], [1, 0, 1], [1, 0, 1], [1, 0, 1], [0, 1, 0]]
        goals.append(world.goal)
    assert 10 < goals.count(NORTH) < 30


@pytest.mark.parametrize("length", [1, 3])
def test_who_remembers_gets_4_and_who_errs_loses(length):
    world = TMaze(length)
    for seed in range(6):
        world.reset(seed=seed)
        walk = [world.step(EAST)[1:4] for _ in range(length)]
        assert walk == [(0.0, False, False)] * length
        wrong = SOUTH if world.goal == NORTH else NORTH
        turn = world.goal if seed % 2 else wrong
        assert world.step(turn)[1:4] == (4.0 if seed % 2 else -0.1, True, False)


def test_standing_still_costs_wherever_a_wall_is():
    world = TMaze(2)
    world.reset(seed=0)
    got = [world.step(a)[1] for a in (WEST, NORTH, SOUTH, EAST, NORTH, WEST, EAST, EAST, EAST)]
    assert got == [-0.1, -0.1, -0.1, 0.0, -0.1, 0.0, 0.0, 0.0, -0.1]


def test_the_time_limit_truncates():
    env = gymnasium.make("dqn/TMaze-v0")
    env.reset(seed=0)
    ends = [env.step(WEST)[2:4] for _ in range(100)]
    assert ends == [(False, False)] * 99 + [(False, True)]
    with pytest.raises(UsageError, match="length ≥ 1"):
        TMaze(0)


def test_hidden_cartpole_is_cartpole_without_velocities():
    hidden, whole = gymnasium.make("dqn/CartPoleHidden-v1"), gymnasium.make("CartPole-v1")
    assert np.array_equal(hidden.reset(seed=3)[0], whole.reset(seed=3)[0][[0, 2]])
    assert hidden.observation_space.shape == (2,)
    assert hidden.spec.max_episode_steps == 500
    for tick in range(30):
        (obs, *rest), (want, *others) = hidden.step(tick % 2), whole.step(tick % 2)
        assert np.array_equal(obs, want[[0, 2]])
        assert rest[:3] == others[:3]
        if rest[1]:
            break
