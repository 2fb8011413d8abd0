import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from oracles import returns as oracle

from dqn.ops.returns import lambda_bootstrap, n_step


@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 2**31), st.floats(0, 1))
@settings(deadline=None, max_examples=150)
def test_n_step_equals_brute_force_wherever_the_end_is(n, columns, seed, gamma):
    rng = np.random.default_rng(seed)
    reward = rng.normal(size=(n, columns))
    terminated, truncated = rng.random((n, columns)) < 0.25, rng.random((n, columns)) < 0.25
    got = n_step(
        torch.from_numpy(reward),
        torch.from_numpy(terminated),
        torch.from_numpy(terminated | truncated),
        gamma,
    )
    for b in range(columns):
        want = oracle.n_step(reward[:, b], terminated[:, b], truncated[:, b], 0, n, gamma)
        assert np.allclose([float(x[b]) for x in got], want, atol=1e-12)


def test_the_power_of_gamma_is_that_of_the_cut_window():
    no, end = torch.tensor([[False]] * 3), torch.tensor([[False], [True], [False]])
    total, discount, k = n_step(torch.ones(3, 1), no, end, 0.5)
    assert (total.item(), discount.item(), k.item()) == (1.5, 0.25, 2)


@pytest.mark.parametrize("lambda_", [0.0, 0.65, 1.0])
def test_lambda_returns_equal_the_weighted_sum_of_all_n_step_returns(lambda_):
    rng = np.random.default_rng(0)
    steps, columns = 12, 7
    reward, value = rng.normal(size=(2, steps, columns))
    terminated, truncated = rng.random((2, steps, columns)) < 0.2
    done, discount = terminated | truncated, 0.9 * ~terminated
    reward_, discount_, done_, value_ = map(torch.from_numpy, (reward, discount, done, value))
    got = reward_ + discount_ * lambda_bootstrap(reward_, discount_, done_, value_, lambda_)
    for b in range(columns):
        for t in range(steps):
            want = oracle.lambda_return(reward[:, b], discount[:, b], done[:, b], value[:, b], t, lambda_)
            assert got[t, b].item() == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize(
    "function", [lambda x: n_step(x, x[0] > 0, x > 0, 0.9), lambda x: lambda_bootstrap(x, x, x > 0, x[0], 0.5)]
)
def test_shapes_are_checked_at_the_door(function):
    with pytest.raises(ValueError, match="wants"):
        function(torch.zeros(3, 2))
