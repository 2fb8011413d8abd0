import numpy as np
import pytest
import torch

from dqn.acting.actor import Actor
from dqn.acting.exploration import EpsilonGreedy
from dqn.ops.schedules import Constant, Linear
from dqn.types import Values


def test_a19_every_environment_has_a_coin_of_its_own():
    explore, gen = EpsilonGreedy(Constant(0.5)), torch.Generator().manual_seed(0)
    q = torch.zeros(8, 1000)
    q[:, 0] = 1
    explored = torch.stack([explore(q, torch.tensor(0.5), gen) != 0 for _ in range(2000)]).float()  # [2000, 8]
    assert ((explored.mean(0) - 0.5).abs() < 0.06).all()
    correlation = np.corrcoef(explored.T.numpy()) - np.eye(8)
    assert np.abs(correlation).max() < 0.1


def test_a19_epsilon_zero_is_zero_and_one_is_uniform():
    gen, q = torch.Generator().manual_seed(0), torch.eye(4).repeat(25, 1)
    greedy = [EpsilonGreedy(Constant(0.0))(q, torch.tensor(0.0), gen) for _ in range(50)]
    assert all(torch.equal(action, q.argmax(-1)) for action in greedy)
    random = torch.cat([EpsilonGreedy(Constant(1.0))(q, torch.tensor(1.0), gen) for _ in range(100)])
    counts = torch.bincount(random, minlength=4)
    assert (counts / 10_000 - 0.25).abs().max() < 0.02


def test_epsilon_outside_its_range_is_refused():
    for bad in (Constant(1.5), Linear(1.0, -0.1, 10)):
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            EpsilonGreedy(bad)


def test_the_actor_uses_the_epsilon_of_env_steps():
    seen = []

    class Spy(EpsilonGreedy):
        def __call__(self, q, epsilon, generator):
            seen.append(epsilon.item())
            return super().__call__(q, epsilon, generator)

    actor = Actor(Values, Spy(Linear(1, 0, 100)), torch.device("cpu"), torch.Generator())
    for env_steps in (0, 50, 100, 10**6):
        actor.act(np.zeros((2, 3), np.float32), env_steps)
    assert seen == [1.0, 0.5, 0.0, 0.0]
    before = actor.generator.get_state()
    actor.act_with(np.zeros((2, 3), np.float32), 0.5, torch.Generator())
    assert torch.equal(before, actor.generator.get_state())
