import numpy as np
import pytest
import torch
from oracles.guided import guided

from dqn.acting.actor import Actor
from dqn.acting.exploration import Boltzmann, EpsilonGreedy, Guided
from dqn.ops.schedules import Constant, Linear
from dqn.types import ILLEGAL, Values


def pick(explore, q, rate, gen, mask=None):
    q = q if mask is None else q.masked_fill(~mask, ILLEGAL)
    return explore(Values(q, mask=mask), torch.tensor(rate), gen)


class Flat:
    """A network without a memory whose q is what it sees."""

    def initial(self, num_envs, device):
        return torch.zeros(num_envs, 0)

    def step(self, obs, state):
        return Values(obs), state


class Adding:
    """A network that remembers the sum of what it saw."""

    def initial(self, num_envs, device):
        return torch.zeros(num_envs, 1)

    def step(self, obs, state):
        return Values(torch.cat([obs, state], -1)), state + obs


def test_every_environment_has_a_coin_of_its_own():
    explore, gen = EpsilonGreedy(Constant(0.5)), torch.Generator().manual_seed(0)
    q = torch.zeros(8, 1000)
    q[:, 0] = 1
    explored = torch.stack([pick(explore, q, 0.5, gen) != 0 for _ in range(2000)]).float()  # [2000, 8]
    assert ((explored.mean(0) - 0.5).abs() < 0.06).all()
    correlation = np.corrcoef(explored.T.numpy()) - np.eye(8)
    assert np.abs(correlation).max() < 0.1


@pytest.mark.parametrize("masked", [False, True])
def test_epsilon_zero_is_zero_and_one_is_uniform_over_the_legal_actions(masked):
    gen, q = torch.Generator().manual_seed(0), torch.eye(4).repeat(25, 1)
    mask = torch.tensor([True, False, True, True]).repeat(100, 1) if masked else None
    legal = q if mask is None else q.masked_fill(~mask, ILLEGAL)
    explore = EpsilonGreedy(Constant(0.0))
    assert all(torch.equal(pick(explore, q, 0.0, gen, mask), legal.argmax(-1)) for _ in range(50))
    random = torch.cat([pick(explore, q, 1.0, gen, mask) for _ in range(100)])
    shares = torch.bincount(random, minlength=4) / 10_000
    want = torch.tensor([1 / 3, 0, 1 / 3, 1 / 3]) if masked else torch.full((4,), 0.25)
    assert (shares - want).abs().max() < 0.02
    assert not masked or shares[1] == 0


def test_the_ladder_gives_environment_i_its_power_of_epsilon():
    explore, gen = EpsilonGreedy(Constant(0.4), ladder=7.0), torch.Generator().manual_seed(0)
    q = torch.zeros(3, 500)
    q[:, 0] = 1
    explored = torch.stack([pick(explore, q, 0.4, gen) != 0 for _ in range(4000)]).float().mean(0)
    assert explored.tolist() == pytest.approx([0.4, 0.4**4.5, 0.4**8], abs=0.03)


def test_boltzmann_draws_from_the_softmax_and_never_an_illegal_action():
    explore, gen = Boltzmann(Constant(1.0)), torch.Generator().manual_seed(0)
    q, mask = torch.tensor([[0.0, 1.0, 5.0, 2.0]]).repeat(20_000, 1), torch.tensor([True, True, False, True])
    shares = torch.bincount(pick(explore, q, 0.5, gen, mask.repeat(20_000, 1)), minlength=4) / 20_000
    want = torch.softmax(torch.tensor([0.0, 2.0, -torch.inf, 4.0]), -1)
    assert (shares - want).abs().max() < 0.015
    assert shares[2] == 0


@pytest.mark.parametrize("kind", [EpsilonGreedy, Boltzmann])
def test_rates_outside_their_range_are_refused(kind):
    for bad in (Constant(-0.5), Linear(1.0, -0.1, 10)):
        with pytest.raises(ValueError, match=r"exploration\."):
            kind(bad)
    with pytest.raises(ValueError, match="ladder"):
        EpsilonGreedy(Constant(0.1), ladder=-1.0)


def test_the_actor_uses_the_epsilon_of_env_steps():
    seen = []

    class Spy(EpsilonGreedy):
        def __call__(self, values, rate, generator):
            seen.append(rate.item())
            return super().__call__(values, rate, generator)

    actor = Actor(Flat(), Spy(Linear(1, 0, 100)), torch.device("cpu"), torch.Generator())
    for env_steps in (0, 50, 100, 10**6):
        actor.act(np.zeros((1, 3), np.float32), env_steps)
    assert seen == [1.0, 0.5, 0.0, 0.0]


def test_the_actor_forgets_where_an_episode_begins_and_tells_what_it_remembered():
    actor = Actor(Adding(), EpsilonGreedy(Constant(0.0)), torch.device("cpu"), torch.Generator(), num_envs=2)
    for begins, remembered in (([False, False], [[0], [0]]), ([True, False], [[1], [1]]), ([False, False], [[0], [2]])):
        actor.act(np.ones((2, 1), np.float32), 0)
        assert actor.before.tolist() == remembered
        actor.forget(np.array(begins))
    assert actor.remembered.tolist() == [[1], [3]]
    twin = Actor(Adding(), EpsilonGreedy(Constant(0.0)), torch.device("cpu"), torch.Generator(), num_envs=2)
    twin.load(actor.state())
    assert torch.equal(twin.remembered, actor.remembered)


def guiding(explore, rate, mask=None, seed=0, count=20_000):
    """Shares of four actions, drawn many times from one state."""
    q, prior = torch.tensor([0.5, 0.0, 1.0, -0.5]), torch.tensor([-1.0, -0.5, -4.0, -2.0])
    legal = torch.ones(4, dtype=torch.bool) if mask is None else torch.tensor(mask)
    values = Values(
        q.masked_fill(~legal, ILLEGAL).repeat(count, 1), prior=prior.repeat(count, 1),
        mask=None if mask is None else legal.repeat(count, 1),
    )  # fmt: skip
    taken = explore(values, torch.tensor(rate), torch.Generator().manual_seed(seed))
    return torch.bincount(taken, minlength=4).div(count).tolist(), (prior.tolist(), q.tolist(), legal.tolist())


@pytest.mark.parametrize("mask", [None, [True, False, True, True]])
@pytest.mark.parametrize("temperature", [0.25, 2.0])
def test_a_guided_policy_draws_as_the_given_one_times_what_actions_are_worth(temperature, mask):
    shares, state = guiding(Guided(temperature), temperature, mask)
    assert shares == pytest.approx(guided(*state, temperature), abs=0.02)


def test_without_guidance_it_is_the_given_policy_and_without_luck_its_likeliest():
    explore = Guided(0.5, base_steps=100)
    assert (explore.rate(99), explore.rate(100)) == (float("inf"), 0.5)
    shares, (prior, q, legal) = guiding(explore, explore.rate(0), [True, False, True, True])
    assert shares == pytest.approx(guided(prior, q, legal, 1e9), abs=0.02)
    for temperature in (0.1, 5.0):
        want = guided(prior, q, legal, temperature)
        shares, _ = guiding(Guided(temperature, sample=False), temperature, [True, False, True, True])
        assert shares[want.index(max(want))] == 1


def test_a_guided_policy_is_evaluated_at_its_last_temperature():
    settled = Guided(Linear(4.0, 0.5, 1000), base_steps=50).settled()
    assert (settled.rate(0), settled.sample) == (0.5, True)
    assert not Guided(1.0).settled(sample=False).sample
    for wrong in (0.0, -1.0):
        with pytest.raises(ValueError, match="temperature"):
            Guided(wrong)
    with pytest.raises(ValueError, match="base_steps"):
        Guided(1.0, base_steps=-1)
