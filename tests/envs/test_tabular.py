import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from oracles import q_table

import dqn.envs  # noqa: F401
from dqn.envs.tabular import Chain, RandomMDP, value_iteration
from dqn.errors import UsageError


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


def masked_value_iteration(world, gamma, sweeps=400):
    """Q* by loops over states, legal actions and branches."""
    states, actions = world.reward.shape
    value = [0.0] * states
    for _ in range(sweeps):
        q = [
            [
                world.reward[s, a]
                + gamma * sum(p * value[j] for p, j in zip(world.probability[s, a], world.successor[s, a], strict=True))
                if world.legal[s, a]
                else float("nan")
                for a in range(actions)
            ]
            for s in range(states)
        ]
        value = [
            0.0 if world.final[s] else max(x for x, may in zip(q[s], world.legal[s], strict=True) if may)
            for s in range(states)
        ]
    return np.array([[float("nan")] * actions if world.final[s] else q[s] for s in range(states)])


@pytest.mark.parametrize("final", [0, 2])
def test_q_star_of_a_masked_world_knows_no_illegal_action(final):
    world = RandomMDP(8, 3, 2, final=final, legal=0.5)
    q = world.optimal_q(0.8)
    assert (~world.legal).sum() > 3
    assert np.isnan(q[~world.legal]).all()
    assert np.allclose(q, masked_value_iteration(world, 0.8), atol=1e-8, equal_nan=True)
    free = RandomMDP(8, 3, 2, final=final).optimal_q(0.8)
    assert np.nanmax(np.abs(free - q)) > 1e-3  # what is forbidden matters


def test_a_mask_changes_nothing_else_of_the_world_and_leaves_an_action():
    free = RandomMDP(50, 4, 3, world_seed=2)
    for legal in (0.0, 0.3, 0.999):
        masked = RandomMDP(50, 4, 3, world_seed=2, legal=legal)
        assert masked.legal.any(1).all()
        for name in ("successor", "probability", "reward"):
            assert np.array_equal(getattr(free, name), getattr(masked, name))
    assert RandomMDP(50, 4, 3, legal=0.0).legal.sum() == 50
    assert abs(RandomMDP(1000, 4, 3, legal=0.3).legal.mean() - 0.3) < 0.1  # a little more: one action always is
    assert free.legal is None
    assert free.reset(seed=0)[1] == free.step(0)[4] == {}


def test_an_illegal_action_raises_and_the_info_says_so_beforehand():
    world = RandomMDP(20, 4, 3, legal=0.5)
    _, info = world.reset(seed=0)
    for _ in range(200):
        assert info["action_mask"].tolist() == world.legal[world.state].tolist()
        info = world.step(int(info["action_mask"].argmax()))[4]
    while world.legal[world.state].all():
        world.step(0)
    with pytest.raises(ValueError, match=f"illegal action .* in state {world.state}"):
        world.step(int((~world.legal[world.state]).argmax()))
    with pytest.raises(UsageError, match="legal"):
        RandomMDP(legal=1.5)
