"""Worlds of tensors are the worlds they stand for, step for step and in distribution."""

import gymnasium
import numpy as np
import pytest
import torch
from oracles import bsuite

from dqn.envs.tabular import Chain, RandomMDP
from dqn.envs.tensor.classic import Acrobot, CartPole, MountainCar
from dqn.envs.tensor.grids import Catch, DeepSea
from dqn.envs.tensor.tabular import Tabular

CPU, UNUSED = torch.device("cpu"), torch.Generator()
SINGLE, DOUBLE = torch.float32, torch.float64
CLASSIC = {CartPole: "CartPole-v1", Acrobot: "Acrobot-v1", MountainCar: "MountainCar-v0"}
REACH = {CartPole: [2.5, 3, 0.25, 3], Acrobot: [3.14, 3.14, 12.5, 28.2], MountainCar: [1.2, 0.07]}  # ± of all states
CLOSE = {CartPole: 2e-6, Acrobot: 2e-3, MountainCar: 2e-7}  # 0.2 s at 28 rad/s make more of Acrobot's last digit


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def gymnasiums(env, state, action):
    """One step of Gymnasium's environment from `state`: its next state, observation, reward and end."""
    env.state, env.steps_beyond_terminated = state.copy(), None
    obs, reward, terminated, *_ = env.step(int(action))
    return np.array(env.state, np.float64), obs, reward, terminated


@pytest.mark.parametrize("dtype", [DOUBLE, SINGLE])
@pytest.mark.parametrize("kind", CLASSIC)
def test_episodes_are_gymnasiums(kind, dtype):
    """In double precision whole episodes, in single precision each step of them: what is chaotic drifts apart."""
    world, rng, generator, ends = kind(dtype), np.random.default_rng(0), seeded(), 0
    spec = gymnasium.spec(CLASSIC[kind])
    env, episodes = spec.make().unwrapped, 60 if kind is CartPole else 5
    assert (world.limit, world.spec.num_actions) == (spec.max_episode_steps, env.action_space.n)
    assert world.spec.obs_shape == env.observation_space.shape
    for episode in range(episodes):
        state = world.reset(1, generator, CPU)
        here, action = state["state"][0].double().numpy(), 0
        for step in range(world.limit):
            if episode % 2 == 0 or step % 10 == 0:  # a push that lasts swings higher
                action = rng.integers(world.spec.num_actions)
            if dtype == SINGLE:
                state = {"state": torch.tensor(here[None], dtype=SINGLE)}
            here, obs, *want = gymnasiums(env, here, action)
            state, reward, ended = world.step(state, torch.tensor([action]), generator)
            near = 1e-7 if dtype == DOUBLE else 1e-5
            np.testing.assert_allclose(state["state"][0], here, rtol=0, atol=near)
            np.testing.assert_allclose(world.observe(state)[0], obs, rtol=0, atol=1e-5)
            assert [reward.item(), ended.item()] == want
            if ended:
                ends += 1
                break
    assert kind is not CartPole or ends == episodes


@pytest.mark.parametrize("dtype", [DOUBLE, SINGLE])
@pytest.mark.parametrize("kind", CLASSIC)
def test_a_step_from_anywhere_is_gymnasiums(kind, dtype):
    world, count, near = kind(dtype), 1000, CLOSE[kind] if dtype == SINGLE else 1e-11
    env = gymnasium.make(CLASSIC[kind]).unwrapped
    wide = torch.tensor(REACH[kind], dtype=dtype)
    state = (torch.rand(count, len(wide), generator=seeded(), dtype=dtype) * 2 - 1) * wide
    action = torch.randint(world.spec.num_actions, (count,), generator=seeded())
    new, reward, ended = world.step({"state": state}, action, UNUSED)
    want = [gymnasiums(env, s, a) for s, a in zip(state.double().numpy(), action, strict=True)]
    there, obs, rewards, ends = map(np.array, zip(*want, strict=True))
    assert reward.dtype == new["state"].dtype == world.observe(new).dtype == dtype
    far = np.abs(new["state"].double().numpy() - there)
    if kind is Acrobot:  # −π and π are one angle
        far[:, :2] = np.minimum(far[:, :2], np.abs(2 * np.pi - far[:, :2]))
    assert far.max() < near
    assert np.median(far) < 1e-6
    np.testing.assert_allclose(world.observe(new), obs, rtol=0, atol=max(near, 2e-6))  # Gymnasium's are rounded
    assert (reward.tolist(), ended.tolist()) == (rewards.tolist(), ends.tolist())
    assert 20 < ends.sum() < count - 20


@pytest.mark.parametrize(
    ("kind", "low", "high"), [(CartPole, [-0.05] * 4, [0.05] * 4), (Acrobot, [-0.1] * 4, [0.1] * 4),
                              (MountainCar, [-0.6, 0], [-0.4, 0])],
)  # fmt: skip
def test_first_states_are_uniform_within_gymnasiums_bounds(kind, low, high):
    state = kind(DOUBLE).reset(10_000, seeded(), CPU)["state"].numpy()
    for values, lowest, highest in zip(state.T, low, high, strict=True):
        if lowest == highest:
            assert (values == lowest).all()
            continue
        steps = (np.sort(values) - lowest) / (highest - lowest)  # Kolmogorov's distance, 1.95/√n at 0.1 %
        assert np.abs(steps - np.linspace(0, 1, len(steps))).max() < 1.95 / 100
        assert steps[0] > -1e-7
        assert steps[-1] < 1 + 1e-7
    correlation = np.corrcoef(state[:, np.array(low) < np.array(high)].T)
    assert np.abs(np.atleast_2d(correlation) - np.eye(len(np.atleast_2d(correlation)))).max() < 0.05


@pytest.mark.parametrize("sizes", [{}, {"rows": 2, "columns": 7}, {"rows": 4, "columns": 1}])
def test_catch_is_the_oracles_catch(sizes):
    world, generator = Catch(**sizes), seeded()
    state = world.reset(60, generator, CPU)
    oracles = [bsuite.Catch(ball, **sizes) for ball in state["ball"].tolist()]
    assert np.bincount(state["ball"]).min() > 0
    ended = torch.zeros(60, dtype=torch.bool)
    while not ended.any():
        action = torch.randint(3, (60,), generator=generator)
        assert world.observe(state).tolist() == [oracle.see() for oracle in oracles]
        state, reward, ended = world.step(state, action, generator)
        want = [oracle.step(a) for oracle, a in zip(oracles, action.tolist(), strict=True)]
        assert list(zip(reward.tolist(), ended.tolist(), strict=True)) == want
        assert world.observe(state).tolist() == [oracle.see() for oracle in oracles]
    assert ended.all()
    assert {*reward.tolist()} <= {1.0, -1.0}


@pytest.mark.parametrize(("size", "seed"), [(2, 0), (5, 1), (10, 42)])
def test_deep_sea_is_the_oracles_deep_sea(size, seed):
    world, generator = DeepSea(size, mapping_seed=seed), seeded()
    state, oracles = world.reset(60, generator, CPU), [bsuite.DeepSea(size, seed) for _ in range(60)]
    best, gold = 0.0, torch.zeros(60)
    for step in range(size):
        assert world.observe(state).tolist() == [oracle.see() for oracle in oracles]
        action = torch.randint(2, (60,), generator=generator)
        action[0] = oracles[0].right[step][step]  # the first one dives for the treasure
        state, reward, ended = world.step(state, action, generator)
        want = [oracle.step(a) for oracle, a in zip(oracles, action.tolist(), strict=True)]
        torch.testing.assert_close(reward, torch.tensor([r for r, _ in want]))
        assert ended.tolist() == [end for _, end in want] == [step == size - 1] * 60
        best, gold = best + want[0][0], gold + reward
    assert world.observe(state).count_nonzero() == 0
    assert best == pytest.approx(world.optimal_return()) == gold[0].item() == gold.max()


def test_catchs_best_return_is_that_of_following_the_ball():
    for world in (Catch(), Catch(2, 5), Catch(3, 9)):
        state, reward = world.reset(20_000, seeded(), CPU), torch.zeros(1)
        for _ in range(world.rows - 1):
            state, reward, _ = world.step(state, (state["ball"] - state["paddle"]).sign() + 1, UNUSED)
        assert reward.mean().item() == pytest.approx(world.optimal_return(), abs=0.02)
    assert Catch().optimal_return() == 1


class EpisodeInfo:
    """Stands in for NumPy's generator: the numbers it is told."""

    def __init__(self, uniform, normal):
        self.random, self.standard_normal = (lambda: uniform), (lambda: normal)


@pytest.mark.parametrize(
    "env", [RandomMDP(30, 3, 4, noise=0.5, final=3), RandomMDP(6, 2, 1), Chain(), Chain(5, slip=0.3), Chain(3, slip=1)]
)
def test_a_tabular_step_is_the_environments_given_the_same_random_numbers(env):
    world, count = Tabular(env), 2000
    (states, actions), generator = env.reward.shape, seeded()
    state, action = torch.randint(states, (count,), generator=generator), torch.arange(count) % actions
    twin = torch.Generator().set_state(generator.get_state())
    new, reward, ended = world.step({"state": state}, action, generator)
    uniform = torch.rand(count, 1, generator=twin).flatten().tolist()
    normal = torch.randn(count, generator=twin).tolist() if env.noise else uniform
    for e in range(count):
        env.state, env.np_random = int(state[e]), EpisodeInfo(uniform[e], normal[e])
        want = env.step(int(action[e]))
        assert (new["state"][e].item(), ended[e].item()) == (want[0], want[2])
        assert reward[e].item() == pytest.approx(want[1], abs=1e-6)
    assert {*zip(state.tolist(), action.tolist(), strict=True)} == {*np.ndindex(states, actions)}
    assert np.array_equal(world.optimal_q(0.9), env.optimal_q(0.9), equal_nan=True)
    assert world.spec.states == states


def chi_square(seen, share):
    """Σ (observed − expected)² / expected over its degrees of freedom, less five standard deviations."""
    expected, freedom = seen.sum() * share, len(share) - 1
    return (((seen - expected) ** 2 / expected).sum() - freedom) / (2 * freedom) ** 0.5


def test_transitions_first_states_and_noise_have_the_distributions_of_the_tables():
    env, count = RandomMDP(12, 2, 5, noise=0.5, final=2), 40_000
    world, generator = Tabular(env), seeded()
    begin = world.reset(count, generator, CPU)["state"].numpy()
    assert abs(chi_square(np.bincount(begin), np.full(10, 0.1))) < 5
    for s, a in ((0, 0), (7, 1)):
        there, reward, _ = world.step({"state": torch.full((count,), s)}, torch.full((count,), a), generator)
        seen = np.bincount(there["state"], minlength=12)
        assert seen.sum() == seen[env.successor[s, a]].sum()
        assert chi_square(seen[env.successor[s, a]], env.probability[s, a]) < 5
        assert reward.mean().item() == pytest.approx(env.reward[s, a], abs=5 * 0.5 / count**0.5)
        assert reward.std().item() == pytest.approx(0.5, rel=0.02)
    ball = Catch().reset(count, generator, CPU)["ball"]
    assert abs(chi_square(np.bincount(ball), np.full(5, 0.2))) < 5
