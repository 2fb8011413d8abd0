from functools import partial

import numpy as np
import pytest
import torch
from oracles import backups as oracle
from oracles import guided

from dqn.networks.heads import Expected
from dqn.ops import backups
from dqn.ops.backups import double_q, expected_sarsa, greedy, kl_soft, log_prior, munchausen, q_learning, soft
from dqn.types import ILLEGAL, Values

NUMBERS = {
    "q_learning": {},
    "double_q": {},
    "expected_sarsa": {"epsilon": 0.3},
    "soft": {"temperature": 0.5},
    "munchausen": {"scale": 0.9, "temperature": 0.5, "floor": -1.0},
}
ACTION = torch.tensor([[0]])


def call(rule, following, online=None, here=None, action=ACTION):
    values = [
        Values(q) for q in (following, following if online is None else online, following if here is None else here)
    ]
    return rule(values[0], lambda: values[1], lambda: values[2], action)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("rule", NUMBERS)
def test_targets_equal_the_loop_over_actions(rule, masked):
    """The mixed value, the bonus and the entropy together, on random numbers; an illegal q of 1e9 changes nothing."""
    rng = np.random.default_rng(0)
    columns, actions, numbers = 40, 5, NUMBERS[rule]
    q = rng.normal(size=(3, columns, actions)) * 2
    legal = rng.random((2, columns, actions)) < (0.5 if masked else 2.0)
    legal[..., 0] |= ~legal.any(-1)
    action = np.array([rng.choice(np.flatnonzero(row)) for row in legal[1]])
    reward, discount = rng.normal(size=columns), 0.9 * (rng.random(columns) < 0.8)
    wrong = np.where(legal[[0, 0, 1]], q, 1e9)
    shown = [Values(torch.from_numpy(np.where(m, x, ILLEGAL))[None], mask=torch.from_numpy(m)[None])
             for x, m in zip(wrong, legal[[0, 0, 1]], strict=True)]  # fmt: skip
    back = partial(getattr(backups, rule), **numbers)(
        shown[0], lambda: shown[1], lambda: shown[2], torch.from_numpy(action)[None]
    )
    atoms, _ = Expected(4, actions).double().mix(shown[0], back.pi)
    got = torch.from_numpy(reward) + back.bonus + torch.from_numpy(discount) * (atoms[..., 0] + back.entropy)
    assert torch.allclose(back.pi.sum(-1), torch.ones(1, columns, dtype=torch.float64))
    assert (back.pi[0][~torch.from_numpy(legal[0])] == 0).all()
    for b in range(columns):
        allowed = [[a for a in range(actions) if legal[i, b, a]] for i in (0, 1)]
        want = oracle.target(rule, reward[b], discount[b], q[0, b], allowed[0], q[1, b], q[2, b], allowed[1],
                             action[b], numbers)  # fmt: skip
        assert got[0, b].item() == pytest.approx(want, abs=1e-9)


def test_double_q_chooses_with_the_online_and_values_with_the_target_network():
    target, online = torch.tensor([[[1.0, 5.0, 2.0]]]), torch.tensor([[[9.0, 0.0, 3.0]]])  # opposite rankings
    head = Expected(4, 3)
    assert head.mix(Values(target), call(q_learning, target, online).pi)[0].item() == 5.0
    assert head.mix(Values(target), call(double_q, target, online).pi)[0].item() == 1.0


@pytest.mark.parametrize("rule", [q_learning, expected_sarsa, soft])
def test_what_a_rule_does_not_need_is_not_computed(rule):
    def no():
        pytest.fail("one forward pass too many")

    rule(Values(torch.zeros(1, 1, 2)), no, no, ACTION)


def test_softmax_of_huge_values_at_a_small_temperature_is_finite():
    q = torch.tensor([[[1e4, 1e4 - 1.0, -1e4]]])
    back = call(partial(munchausen, temperature=0.03), q, action=torch.tensor([[2]]))
    assert all(x.isfinite().all() for x in (back.pi, back.bonus, back.entropy))
    assert back.bonus.item() == pytest.approx(-0.9)  # the floor
    assert back.pi[0, 0].tolist() == pytest.approx([1.0, 0.0, 0.0])


def test_greedy_breaks_ties_by_the_first_action():
    assert greedy(torch.tensor([1.0, 1.0, 0.0])).tolist() == [1.0, 0.0, 0.0]


def test_doors():
    with pytest.raises(ValueError, match="floating"):
        greedy(torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="equal shapes"):
        call(double_q, torch.zeros(1, 2, 3), torch.zeros(1, 2, 4))
    with pytest.raises(ValueError, match="temperature"):
        call(partial(soft, temperature=0.0), torch.zeros(1, 1, 2))
    with pytest.raises(ValueError, match="epsilon"):
        call(partial(expected_sarsa, epsilon=1.5), torch.zeros(1, 1, 2))


def with_prior(seed=0, columns=30, actions=5, masked=True):
    """Values with a prior at random, some actions illegal, whose numbers are then absurd."""
    rng = np.random.default_rng(seed)
    legal = rng.random((columns, actions)) < (0.6 if masked else 2)
    legal[:, 0] |= ~legal.any(-1)
    q, prior = rng.normal(size=(columns, actions)), rng.normal(size=(columns, actions)) - 3
    shown = np.where(legal, q, ILLEGAL), np.where(legal, prior, 50.0)
    tensors = [torch.from_numpy(x)[None] for x in (*shown, legal)]
    return Values(tensors[0], prior=tensors[1], mask=tensors[2] if masked else None), q, prior, legal


@pytest.mark.parametrize("temperature", [0.05, 1.0])
@pytest.mark.parametrize("masked", [False, True])
def test_the_value_near_a_given_policy_equals_the_loop(masked, temperature):
    """kl_soft: Σ π′ q + entropy is τ log Σ π0 exp(q/τ), and π′ is π0 exp(q/τ) / Z."""
    values, q, prior, legal = with_prior(masked=masked)
    back = kl_soft(values, lambda: values, lambda: values, torch.zeros(1, len(q), dtype=torch.int64), temperature)
    mixed = (back.pi * values.q).sum(-1) + back.entropy
    for b in range(len(q)):
        assert float(mixed[0, b]) == pytest.approx(guided.soft_value(prior[b], q[b], legal[b], temperature), abs=1e-6)
        want = guided.guided(prior[b], q[b], legal[b], temperature)
        assert back.pi[0, b].tolist() == pytest.approx(want, abs=1e-6)


def test_the_given_policy_is_one_over_the_legal_actions():
    values, _, prior, legal = with_prior()
    mass = (np.exp(prior) * legal).sum(-1, keepdims=True)
    got = log_prior(values)[0].exp().numpy()
    np.testing.assert_allclose(got, np.exp(prior) * legal / mass, atol=1e-9)


def test_a_value_without_a_given_policy_is_refused():
    with pytest.raises(ValueError, match="env=lm"):
        call(kl_soft, torch.zeros(1, 1, 2))
