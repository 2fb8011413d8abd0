import pytest
import torch

from dqn.ops.schedules import Constant, Exponential, Linear
from dqn.ops.transforms import Identity, SignedHyperbolic


def test_linear_is_a_pure_function_of_the_count():
    schedule = Linear(1.0, 0.0, 100, delay=50)
    assert [schedule(t) for t in (0, 50, 100, 150, 10**9)] == [1.0, 1.0, 0.5, 0.0, 0.0]
    assert Constant(0.0)(7) == 0.0
    with pytest.raises(ValueError, match="steps ≥ 1"):
        Linear(1, 0, 0)


def stepped(start, end, steps, until, count):
    """ε as the authors of Beyond The Rainbow compute it: once for each decision, one after another."""
    epsilon = start
    for _ in range(count):
        epsilon -= (epsilon - end) / steps
    return 0.0 if until is not None and count >= until else epsilon


@pytest.mark.parametrize("until", [None, 500])
@pytest.mark.parametrize(("start", "end", "steps"), [(1.0, 0.01, 100), (1.0, 0.01, 3), (0.2, 0.5, 50), (1.0, 0.1, 1)])
def test_exponential_is_one_step_towards_the_end_for_each_decision(start, end, steps, until):
    schedule = Exponential(start, end, steps, until)
    for count in (0, 1, 2, 10, 99, 499, 500, 501, 3000):
        assert schedule(count) == pytest.approx(stepped(start, end, steps, until, count), abs=1e-12)
    assert schedule(10**15) == pytest.approx(0.0 if until else end)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"steps": -3}, {"steps": 10, "until": 0}])
def test_exponential_refuses_what_is_no_length(wrong):
    with pytest.raises(ValueError, match="steps ≥ 1 and until ≥ 1"):
        Exponential(1.0, 0.01, **wrong)


def test_signed_hyperbolic_and_its_inverse():
    h, x = SignedHyperbolic(1e-3), torch.logspace(-3, 6, 200, dtype=torch.float64)
    x = torch.cat([-x, torch.zeros(1, dtype=torch.float64), x])
    assert torch.allclose(h.inverse(h(x)), x, rtol=1e-9, atol=1e-12)
    assert h(torch.tensor(3.0)).item() == pytest.approx(1 + 3e-3)
    assert torch.allclose(h.inverse(h(x.float())), x.float(), rtol=2e-3, atol=1e-5)
    assert torch.equal(Identity().inverse(Identity()(x)), x)
    with pytest.raises(ValueError, match="epsilon > 0"):
        SignedHyperbolic(0)
