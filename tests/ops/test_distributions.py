import numpy as np
import pytest
import torch

from dqn.ops.distributions import expectation, hl_gauss_target, project, quantile_huber
from tests.oracles import distributions as oracle

SUPPORT = torch.linspace(-10, 10, 51)


def random_distribution(rng, *shape):
    """Atoms on both sides of and beyond ±10, some exactly on the grid; probabilities that sum to one."""
    atoms = np.where(rng.random(shape) < 0.3, np.round(rng.normal(0, 8, shape) / 0.4) * 0.4, rng.normal(0, 8, shape))
    return atoms, rng.dirichlet(np.ones(shape[-1]), shape[:-1])


@pytest.mark.parametrize("uniform", [False, True])
def test_project_equals_the_loop(uniform):
    atoms, probs = random_distribution(np.random.default_rng(0), 3, 5, 7)
    if uniform:
        probs = np.full_like(probs, 1 / 7)
    got = project(torch.tensor(atoms), None if uniform else torch.tensor(probs), SUPPORT.double())
    assert got.shape == (3, 5, 51)
    for index in np.ndindex(3, 5):
        want = oracle.project(atoms[index], probs[index], SUPPORT.double().numpy())
        assert got[index].numpy() == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bounds", [(-10, 10, 51), (0, 200, 201), (-1, 1, 2), (-0.3, 100.1, 77), (1e4, 1.1e4, 51)])
def test_mass_is_one_and_the_mean_is_kept(bounds, dtype):
    low, high, count = bounds
    support = torch.linspace(*bounds, dtype=dtype)
    atoms = torch.cat([
        torch.tensor([0.0, 1.0, -1.0, low, high, low - 1, high + 1, low - 1e9, high + 1e9], dtype=dtype),
        support, support[:-1] + 1e-6, support[:-1] + 0.37 * (high - low) / (count - 1),
    ]).unsqueeze(-1)  # fmt: skip
    mass = project(atoms, None, support)
    assert (mass >= 0).all()
    assert ((mass > 0).sum(-1) <= 2).all()
    assert mass.sum(-1).sub(1).abs().max().item() <= 1e-6
    mean, want = (mass.double() * support.double()).sum(-1), atoms.squeeze(-1).double().clamp(low, high)
    assert (mean - want).abs().max().item() <= (1e-6 if dtype == torch.float32 else 1e-12) * max(abs(low), abs(high))


def test_a_distribution_already_on_the_support_is_kept():
    probs = torch.rand(4, 51)
    probs /= probs.sum(-1, keepdim=True)
    assert torch.allclose(project(SUPPORT.expand(4, -1), probs, SUPPORT), probs, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.05, 0.3, 3.0, 50.0])
def test_hl_gauss_equals_the_loop(sigma):
    atoms, probs = random_distribution(np.random.default_rng(1), 3, 5, 4)
    edges = torch.linspace(-10, 10, 52, dtype=torch.float64)
    got = hl_gauss_target(torch.tensor(atoms), torch.tensor(probs), edges, sigma)
    single = hl_gauss_target(torch.tensor(atoms[..., :1]), None, edges, sigma)
    for index in np.ndindex(3, 5):
        want = oracle.hl_gauss(atoms[index], probs[index], edges.numpy(), sigma)
        assert got[index].numpy() == pytest.approx(want, abs=1e-12)
        want = oracle.hl_gauss(atoms[index][:1], [1.0], edges.numpy(), sigma)
        assert single[index].numpy() == pytest.approx(want, abs=1e-12)


def test_hl_gauss_is_a_distribution_in_float32_wherever_the_target_lies():
    atoms = torch.tensor([0.0, 1.0, -1.0, -10.0, 10.0, 9.9, 11.0, 1e6, -1e6, torch.inf, -torch.inf]).unsqueeze(-1)
    mass = hl_gauss_target(atoms, None, torch.linspace(-10, 10, 52), 0.75 * 20 / 51)
    assert (mass >= 0).all()
    assert mass.sum(-1).sub(1).abs().max().item() <= 1e-6
    centres = torch.linspace(-10, 10, 52)[:-1] + 10 / 51
    mean = (mass * centres).sum(-1)
    assert mean[:3].tolist() == pytest.approx([0.0, 1.0, -1.0], abs=2e-3)  # far from the ends only bins blur it
    assert mean[4] == mean[6] == mean[7] == mean[9] < 10


@pytest.mark.parametrize("kappa", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("uniform", [False, True])
def test_quantile_huber_equals_the_loops(kappa, uniform):
    rng = np.random.default_rng(2)
    quantiles, tau = rng.normal(0, 2, (3, 5, 6)), rng.random((3, 5, 6))
    targets, probs = rng.normal(0, 2, (3, 5, 4)), rng.dirichlet(np.ones(4), (3, 5))
    if uniform:
        probs = np.full_like(probs, 1 / 4)
    arguments = [torch.tensor(x) for x in (quantiles, tau, targets, probs)]
    got = quantile_huber(*arguments[:3], None if uniform else arguments[3], kappa)
    assert got.shape == (3, 5)
    for i in np.ndindex(3, 5):
        want = oracle.quantile_huber(quantiles[i], tau[i], targets[i], probs[i], kappa)
        assert got[i].item() == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize(("delta", "slope"), [(10.0, 1.0), (0.5, 0.5), (-0.5, -0.5), (-10.0, -1.0)])
@pytest.mark.parametrize("tau", [0.5, 0.1])
def test_the_slope_is_huber_s_times_the_quantile_s_weight(delta, slope, tau):
    quantile = torch.zeros(1, requires_grad=True)
    quantile_huber(quantile, torch.tensor([tau]), torch.tensor([delta]), None, 1.0).backward()
    weight = tau if delta > 0 else 1 - tau
    assert quantile.grad.item() == pytest.approx(-slope * weight)


def test_every_quantile_sees_every_target():
    """No maximum over quantiles, no pairing of the i-th with the i-th: the gradient counts targets on each side."""
    quantiles = torch.tensor([0.0, 10.0, 20.0], requires_grad=True)
    tau = torch.tensor([0.25, 0.5, 0.75])
    quantile_huber(quantiles, tau, torch.tensor([-100.0, 100.0, 200.0, 300.0]), None, 1.0).backward()
    want = [-(3 * t - (1 - t)) / 4 for t in tau.tolist()]  # three targets pull up with τ, one down with 1 − τ
    assert quantiles.grad.tolist() == pytest.approx(want)


def test_expectation_is_the_mean():
    atoms, probs = torch.tensor([[1.0, 2.0, 6.0]]), torch.tensor([[0.5, 0.5, 0.0]])
    assert expectation(atoms, None).tolist() == [3.0]
    assert expectation(atoms, probs).tolist() == [1.5]
    assert expectation(atoms[..., :1], None).tolist() == [1.0]


def test_wrong_shapes_are_refused_at_the_door():
    x, p = torch.zeros(4, 3), torch.zeros(4, 1)
    for bad in (
        lambda: expectation(x, p),
        lambda: project(x, p, SUPPORT),
        lambda: project(x, None, SUPPORT.unsqueeze(0)),
        lambda: project(x, None, SUPPORT[:1]),
        lambda: project(torch.tensor(0.0), None, SUPPORT),
        lambda: hl_gauss_target(x, p, SUPPORT, 1.0),
        lambda: hl_gauss_target(x, None, SUPPORT.unsqueeze(0), 1.0),
        lambda: quantile_huber(x, torch.zeros(3), x, None, 1.0),
        lambda: quantile_huber(x, x, torch.zeros(1, 3), None, 1.0),
        lambda: quantile_huber(x, x, x, p, 1.0),
    ):
        with pytest.raises(ValueError, match="wants"):
            bad()
