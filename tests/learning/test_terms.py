import math

import pytest
import torch

from dqn.learning.terms import Cloning, Conservative
from dqn.types import ILLEGAL, Values


def case(seed=0, steps=3, batch=4, actions=5):
    coins = torch.Generator().manual_seed(seed)
    q = torch.randn(steps, batch, actions, generator=coins) * 3
    return q, torch.randint(actions, (steps, batch), generator=coins)


def by_loop(q, action, legal, what):
    out = torch.zeros(action.shape)
    for t in range(action.shape[0]):
        for b in range(action.shape[1]):
            choices = [float(q[t, b, a]) for a in range(q.shape[2]) if legal[t, b, a]]
            out[t, b] = what(choices, float(q[t, b, action[t, b]]))
    return out


def legal_case(seed=0):
    q, action = case(seed)
    legal = torch.rand(q.shape, generator=torch.Generator().manual_seed(seed + 1)) < 0.5
    legal.scatter_(-1, action.unsqueeze(-1), True)
    return q, action, legal, q.masked_fill(~legal, ILLEGAL)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 7.0])
@pytest.mark.parametrize("masked", [False, True])
def test_conservative_is_the_formula_over_legal_actions(temperature, masked):
    q, action, legal, filled = legal_case()
    if not masked:
        legal, filled = torch.ones_like(legal), q
    want = by_loop(
        q, action, legal,
        lambda all_q, q_a: 0.3 * (temperature * math.log(sum(math.exp(x / temperature) for x in all_q)) - q_a),
    )  # fmt: skip
    got = Conservative(0.3, temperature)(Values(filled, mask=legal), action)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    assert (got >= 0).all()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 7.0])
@pytest.mark.parametrize("masked", [False, True])
def test_cloning_is_the_formula_over_legal_actions(temperature, masked):
    q, action, legal, filled = legal_case(3)
    if not masked:
        legal, filled = torch.ones_like(legal), q
    want = by_loop(
        q, action, legal,
        lambda all_q, q_a: -2.0 * math.log(math.exp(q_a / temperature)
                                           / sum(math.exp(x / temperature) for x in all_q)),
    )  # fmt: skip
    got = Cloning(2.0, temperature)(Values(filled, mask=legal), action)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("term", [Conservative, Cloning])
def test_the_gradient_is_softmax_minus_one_hot_and_none_where_illegal(term):
    _, action, legal, filled = legal_case(5)
    filled.requires_grad_(True)
    term(0.7)(Values(filled), action).sum().backward()
    one_hot = torch.nn.functional.one_hot(action, filled.shape[-1])
    torch.testing.assert_close(filled.grad, 0.7 * (filled.detach().softmax(-1) - one_hot))
    assert (filled.grad[~legal] == 0).all()
    assert filled.grad.abs().sum() > 0


@pytest.mark.parametrize("term", [Conservative, Cloning])
def test_large_values_one_legal_action_and_small_temperatures_stay_finite(term):
    q = torch.tensor([[[1e6, -1e6, 3.0], [5.0, ILLEGAL, ILLEGAL]]], requires_grad=True)
    out = term(1.0, 1e-3)(Values(q), torch.tensor([[0, 0]]))
    out.sum().backward()
    assert out.tolist() == [[0.0, 0.0]]
    assert q.grad.isfinite().all()


@pytest.mark.parametrize("term", [Conservative, Cloning])
def test_no_weight_no_term(term):
    q, action = case()
    assert (term(0.0)(Values(q), action) == 0).all()


@pytest.mark.parametrize("term", [Conservative, Cloning])
def test_what_does_not_fit_is_refused(term):
    q, action = case()
    for bad_q, bad_action in ((q[0], action), (q, action[0]), (q, action[:2]), (q, action.T)):
        with pytest.raises(ValueError, match=r"q \[T, B, A\]"):
            term(1.0)(Values(bad_q), bad_action)
    with pytest.raises(ValueError, match="weight must be ≥ 0"):
        term(-0.1)
    with pytest.raises(ValueError, match="temperature must be > 0"):
        term(1.0, 0.0)
