"""Cloning where the environment gives a policy, and learning from terms alone."""

from math import log

import pytest
import torch
from conftest import configure
from oracles.guided import guided

from dqn.learning.objective import Objective
from dqn.learning.terms import Cloning
from dqn.ops.backups import q_learning
from dqn.ops.transforms import Identity
from dqn.replay.dataset import best
from dqn.types import Batch, Rows, Values


@pytest.mark.parametrize("masked", [False, True])
def test_what_imitates_is_the_guided_policy(masked):
    torch.manual_seed(0)
    q, prior = torch.randn(2, 3, 4), torch.randn(2, 3, 4) - 2
    mask = torch.rand(2, 3, 4) < 0.6 if masked else torch.ones(2, 3, 4, dtype=torch.bool)
    mask[..., 1] = True
    action = torch.ones(2, 3, dtype=torch.int64)
    values = Values(q.masked_fill(~mask, -1e30), mask=mask if masked else None, prior=prior)
    got = Cloning(2.0, 0.5)(values, action)
    for t in range(2):
        for b in range(3):
            want = guided(prior[t, b].tolist(), q[t, b].tolist(), mask[t, b].tolist(), 0.5)[1]
            assert float(got[t, b]) == pytest.approx(-2 * log(want), abs=1e-4)


class Head:
    def mix(self, values, pi, inverse):
        return (values.q * pi).sum(-1, keepdim=True), None

    def loss(self, values, action, atoms, probs):
        error = values.q.gather(-1, action.unsqueeze(-1)).squeeze(-1) - atoms.squeeze(-1)
        return error**2, -error.detach()


class Network:
    def __init__(self):
        self.q, self.head = torch.randn(1, 2, 3, requires_grad=True), Head()

    def values_at(self, batch, rows):
        return Values(self.q)


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_the_temporal_difference_has_a_weight_beside_the_terms(weight):
    torch.manual_seed(1)
    network, half = Network(), torch.full((1, 2), 0.5)
    batch = Batch(torch.zeros(2, 2, 1), torch.zeros(1, 2, dtype=torch.int64), half, half, torch.ones(2))
    term = Cloning(1.0)

    def total(td_weight, terms):
        return Objective(q_learning, Identity(), None, terms, td_weight)(network, network, batch).total

    alone, both = total(0.0, [term]), total(weight, [term])
    assert float(both) == pytest.approx(float(alone) + weight * float(total(1.0, [])), abs=1e-6)
    assert float(total(1.0, [])) > 0.01


def test_the_best_share_is_that_of_a_loop():
    """Episodes of several lengths in two blocks, with rows that were no decisions between them."""
    generator = torch.Generator().manual_seed(0)
    episodes, rows = [], []
    for number in range(20):
        length = number % 4 + 1
        rewards = torch.randn(length, generator=generator).tolist()
        episodes.append((number, sum(rewards), length))
        rows += [(number, reward, False) for reward in rewards] + [(number, 0.0, True)] * (1 + number % 2)
    number, reward, reset = (torch.tensor(list(column)) for column in zip(*rows, strict=True))
    flags = torch.zeros_like(reset)
    blocks = []
    for low, high in ((0, 17), (17, len(rows))):
        obs = torch.cat([number[low:high], number[high - 1 : high]]).float()[:, None, None]
        fields = (number, reward, flags, flags, reset)
        blocks.append(Rows(obs, *(field[low:high, None] for field in fields)))
    for share in (0.05, 0.3, 1.0):
        wanted = sorted(n for n, *_ in sorted(episodes, key=lambda e: -e[1])[: round(20 * share)])
        found = [*best(blocks, share)]
        kept = torch.cat([block.action[:, 0] for block in found])
        assert sorted({*kept.tolist()}) == wanted
        assert sum(int((~block.reset).sum()) for block in found) == sum(e[2] for e in episodes if e[0] in wanted)
        assert torch.cat([block.obs[:-1, 0, 0] for block in found]).tolist() == kept.tolist()
        assert found[-1].reset[-1, 0]


def test_a_run_without_a_weight_learns_as_before():
    assert configure("env=chain").td_weight == 1.0
