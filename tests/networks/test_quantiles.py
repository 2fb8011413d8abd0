import numpy as np
import pytest
import torch

from dqn.networks.quantiles import FullQuantile, ImplicitQuantile, Quantile
from dqn.ops.distributions import quantile_huber
from tests.oracles import distributions as oracle


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def make(**kwargs):
    return FullQuantile(4, 3, atoms=5, **kwargs).double()


def test_quantile_fractions_are_the_midpoints():
    values = Quantile(4, 3, atoms=4)(torch.randn(2, 4))
    assert values.tau.tolist() == [[0.125, 0.375, 0.625, 0.875]] * 2


def test_implicit_fractions_are_drawn_for_each_element_and_fixed_in_evaluation():
    head = ImplicitQuantile(4, 3, samples=2000, midpoints=2)
    tau = head(torch.randn(2, 3, 4)).tau
    assert tau.shape == (2, 3, 2000)
    assert tau.flatten(0, 1).unique(dim=0).shape[0] == 6
    assert tau.mean(-1).flatten().tolist() == pytest.approx([0.5] * 6, abs=0.05)
    assert 0 <= tau.min() < 0.01
    assert 0.99 < tau.max() < 1
    assert head.eval()(torch.randn(2, 4)).tau.tolist() == [[0.25, 0.75]] * 2


def test_proposed_fractions_are_the_midpoints_of_a_softmax_s_sums():
    head = make()
    with torch.no_grad():
        head.fraction.weight.normal_()
    features = torch.randn(2, 3, 4).double()
    values = head(features)
    probs = head.fraction(features).softmax(-1)
    for i in np.ndindex(2, 3):
        edges = np.concatenate([[0.0], np.cumsum(probs[i].detach().numpy())])
        assert edges[-1] == pytest.approx(1.0)
        assert values.tau[i].numpy() == pytest.approx((edges[1:] + edges[:-1]) / 2)
        assert values.probs[i].numpy() == pytest.approx(np.diff(edges))
        assert values.borders[i].detach().numpy() == pytest.approx(edges[1:-1])
    start = FullQuantile(4, 3, atoms=5)(torch.randn(7, 4))
    assert start.tau.flatten().tolist() == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9] * 7, abs=0.03)


def known_inverse(head):
    """Replace the learnt quantile function of a FullQuantile by a fixed one, F⁻¹(τ) = c (τ³ + τ), c for each action."""
    scale = torch.tensor([1.0, 2.0, 5.0]).double().unsqueeze(-1)
    head.quantiles = lambda features, tau, mask: scale * (tau**3 + tau).unsqueeze(-2)


def test_the_fraction_gradient_is_the_numeric_one_of_the_wasserstein_distance():
    head = make()
    known_inverse(head)
    features, action = torch.randn(1, 1, 4).double(), torch.tensor([[2]])
    with torch.no_grad():
        head.fraction.bias.copy_(torch.tensor([0.3, -0.5, 0.9, 0.0, -0.2]))

    def distance(bias):
        logits = (head.fraction.weight @ features[0, 0]).detach().numpy() + bias
        probs = np.exp(logits) / np.exp(logits).sum()
        return oracle.wasserstein(lambda tau: 5 * (tau**3 + tau), np.concatenate([[0.0], np.cumsum(probs)]))

    error, _ = head.loss(head(features), action, torch.randn(1, 1, 1).double(), None)
    error.sum().backward()
    bias, numeric = head.fraction.bias.detach().numpy(), []
    for unit in np.eye(5):
        numeric.append((distance(bias + 1e-4 * unit) - distance(bias - 1e-4 * unit)) / 2e-4)
    assert np.abs(numeric).max() > 0.01
    assert head.fraction.bias.grad.numpy() == pytest.approx(np.array(numeric), rel=1e-3, abs=1e-6)


def test_the_fraction_layer_learns_from_its_loss_alone_and_teaches_nothing_else():
    features = torch.randn(1, 6, 4).double().requires_grad_()
    action, y = torch.randint(3, (1, 6)), torch.randn(1, 6, 1).double()
    head = make()
    values = head(features)
    error, _ = head.loss(values, action, y, None)
    slow = {id(p) for p in head.slow_parameters()}
    assert len(slow) == 2
    rest = [p for p in head.parameters() if id(p) not in slow]
    with_both = torch.autograd.grad(error.sum(), [features, *rest], retain_graph=True)
    plain = values.z.gather(-2, action[..., None, None].expand(1, 6, 1, 5)).squeeze(-2)
    quantile_loss = quantile_huber(plain, values.tau, y, None, 1.0)
    assert torch.equal(error, quantile_loss)  # the logged loss is the quantile loss
    alone = torch.autograd.grad(quantile_loss.sum(), [features, *rest], retain_graph=True)
    assert all(map(torch.allclose, with_both, alone))
    assert not values.tau.requires_grad
    reached = torch.autograd.grad(values.q.sum() + quantile_loss.sum(), head.slow_parameters(), allow_unused=True)
    assert all(g is None for g in reached)


def test_the_entropy_of_the_fractions_is_rewarded():
    """A quantile function that is zero everywhere leaves the entropy alone in the fractions' loss."""
    head = make(entropy=2.0)
    head.quantiles = lambda features, tau, mask: torch.zeros(*tau.shape[:-1], 3, tau.shape[-1]).double()
    logits = torch.tensor([1.0, -1.0, 0.0, 0.5, 0.2]).double()
    with torch.no_grad():
        head.fraction.weight.zero_()
        head.fraction.bias.copy_(logits)
    values, y = head(torch.zeros(1, 1, 4).double()), torch.randn(1, 1, 1).double()
    head.loss(values, torch.tensor([[0]]), y, None)[0].sum().backward()
    logits.requires_grad_()
    p = logits.softmax(-1)
    (2.0 * (p * p.log()).sum()).backward()
    assert torch.allclose(head.fraction.bias.grad, logits.grad)


def test_without_gradients_the_borders_are_not_paid_for():
    head, features = make(), torch.randn(1, 2, 4).double()
    with torch.no_grad():
        values = head(features)
    assert values.border_z is None
    read = head.loss(values, torch.zeros(1, 2, dtype=torch.int64), y := torch.randn(1, 2, 1).double(), None)[0]
    learnt = head.loss(head(features), torch.zeros(1, 2, dtype=torch.int64), y, None)[0]
    assert torch.allclose(read, learnt)
