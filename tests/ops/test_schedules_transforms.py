import pytest
import torch

from dqn.ops.schedules import Constant, Linear
from dqn.ops.transforms import Identity, SignedHyperbolic


def test_linear_is_a_pure_function_of_the_count():
    schedule = Linear(1.0, 0.0, 100, delay=50)
    assert [schedule(t) for t in (0, 50, 100, 150, 10**9)] == [1.0, 1.0, 0.5, 0.0, 0.0]
    assert Constant(0.0)(7) == 0.0
    with pytest.raises(ValueError, match="steps ≥ 1"):
        Linear(1, 0, 0)


def test_signed_hyperbolic_and_its_inverse():
    h, x = SignedHyperbolic(1e-3), torch.logspace(-3, 6, 200, dtype=torch.float64)
    x = torch.cat([-x, torch.zeros(1, dtype=torch.float64), x])
    assert torch.allclose(h.inverse(h(x)), x, rtol=1e-9, atol=1e-12)
    assert h(torch.tensor(3.0)).item() == pytest.approx(1 + 3e-3)
    assert torch.allclose(h.inverse(h(x.float())), x.float(), rtol=2e-3, atol=1e-5)
    assert torch.equal(Identity().inverse(Identity()(x)), x)
    with pytest.raises(ValueError, match="epsilon > 0"):
        SignedHyperbolic(0)
