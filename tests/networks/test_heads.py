import copy
import functools

import numpy as np
import pytest
import torch

from dqn.networks.heads import Categorical, Expected, HLGauss
from dqn.networks.layers import Noisy
from dqn.networks.outputs import Dueling, Single
from dqn.networks.quantiles import FullQuantile, ImplicitQuantile, Quantile
from tests.oracles import distributions as oracle

HEADS = {
    "expected": Expected,
    "squared": functools.partial(Expected, loss="squared"),
    "categorical": functools.partial(Categorical, v_min=-2, v_max=2, atoms=11),
    "hl_gauss": functools.partial(HLGauss, v_min=-2, v_max=2, bins=20),
    "quantile": functools.partial(Quantile, atoms=8),
    "implicit_quantile": functools.partial(ImplicitQuantile, samples=6, midpoints=8),
    "full_quantile": functools.partial(FullQuantile, atoms=5),
}
every_head = pytest.mark.parametrize("name", HEADS)
distributional = pytest.mark.parametrize("name", [n for n in HEADS if n not in ("expected", "squared")])
quantiles = pytest.mark.parametrize("name", ["quantile", "implicit_quantile", "full_quantile"])


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def make(name, features=4, actions=3, dtype=torch.float64, **kwargs):
    return HEADS[name](features, actions, **kwargs).to(dtype)


def targets(*lead, count=1, dtype=torch.float64):
    """Atoms on no head's support, some beyond it."""
    return torch.randn(*lead, count, dtype=dtype) * 2


def means(values, head):
    """E[Z(a)] from the distributions themselves [..., A]."""
    if values.z is None:
        return values.q
    if isinstance(head, (Categorical, HLGauss)):
        return (values.z.exp() * (head.support if isinstance(head, Categorical) else head.centres)).sum(-1)
    return (values.z * values.probs.unsqueeze(-2)).sum(-1) if isinstance(head, FullQuantile) else values.z.mean(-1)


@every_head
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("lead", [(), (5,), (2, 5), (1, 1), (3, 2, 5)])
@pytest.mark.parametrize("output", [Single, Dueling])
@pytest.mark.parametrize("training", [True, False])
def test_every_head_has_any_leading_shape_and_keeps_the_dtype(name, dtype, lead, output, training):
    head = make(name, dtype=dtype, output=output).train(training)
    mask = torch.tensor([True, True, False]).expand(*lead, 3)
    for m in (None, mask):
        values = head(torch.randn(*lead, 4, dtype=dtype), m)
        assert values.q.shape == (*lead, 3)
        assert values.q.dtype == dtype
        assert torch.allclose(values.q, means(values, head), atol=1e-5)
        if values.tau is not None:
            assert values.tau.shape == (*lead, values.z.shape[-1])
        pi = torch.rand(*lead, 3, dtype=dtype).softmax(-1)
        atoms, probs = head.mix(values, pi)
        assert atoms.shape[:-1] == lead
        assert probs is None or probs.shape == atoms.shape
        action = torch.randint(3, lead)
        for y, p in ((targets(*lead, count=7, dtype=dtype), None), (atoms.detach(), probs)):
            error, td_error = head.loss(values, action, y, p if p is None else p.detach())
            assert error.shape == td_error.shape == lead
            assert error.dtype == td_error.dtype == dtype
            assert error.requires_grad
            assert not td_error.requires_grad
            assert error.isfinite().all()


@every_head
def test_the_gradient_scales_with_the_weight_of_each_sample(name):
    head = make(name)
    action, y, features = torch.randint(3, (1, 4)), targets(1, 4, count=3), torch.randn(1, 4, 4).double()

    def gradient(weight):
        torch.manual_seed(1)
        head.zero_grad()
        (weight * head.loss(head(features), action, y, None)[0]).sum().backward()
        return torch.cat([p.grad.flatten() for p in head.parameters()])

    weight = torch.tensor([0.5, 2.0, 0.0, 7.0]).double()
    single = [gradient(one) for one in torch.eye(4).double()]
    assert all(g.abs().sum() > 0 for g in single)
    assert torch.allclose(gradient(weight), sum(w * g for w, g in zip(weight, single, strict=True)), atol=1e-10)


@every_head
def test_wrong_shapes_are_refused(name):
    head = make(name)
    values, action, y = head(torch.randn(2, 4, 4).double()), torch.zeros(2, 4, dtype=torch.int64), targets(2, 4)
    head.loss(values, action, y, None)
    for bad in (
        (action, y.squeeze(-1), None),
        (action, y[:, :1], None),
        (action, y, torch.ones(2, 4, 3)),
        (action, y, torch.ones(2, 4)),
        (action[:, :1], y, None),
        (action[:1], y[:1], None),
        (action.unsqueeze(-1), y, None),
    ):
        with pytest.raises(ValueError, match="wants"):
            head.loss(values, *bad)
    for pi in (torch.zeros(4, 3), torch.zeros(2, 4), torch.zeros(2, 4, 1), torch.zeros(2, 1, 3)):
        with pytest.raises(ValueError, match="wants"):
            head.mix(values, pi)


@distributional
def test_values_of_another_head_are_refused(name):
    values = make("expected")(torch.randn(2, 4, 4).double())
    with pytest.raises(ValueError, match="wants"):
        make(name).loss(values, torch.zeros(2, 4, dtype=torch.int64), targets(2, 4), None)


@pytest.mark.parametrize(
    ("make_it", "message"),
    [
        (lambda: Categorical(4, 3, v_min=1, v_max=1), r"head\.v_min must be below head\.v_max"),
        (lambda: Categorical(4, 3, atoms=1), r"head\.atoms"),
        (lambda: HLGauss(4, 3, v_min=1, v_max=-1), r"head\.v_min must be below head\.v_max"),
        (lambda: HLGauss(4, 3, bins=1), r"head\.bins"),
        (lambda: HLGauss(4, 3, sigma_ratio=0), r"head\.sigma_ratio"),
        (lambda: Quantile(4, 3, atoms=0), r"head\.atoms"),
        (lambda: Quantile(4, 3, kappa=-1), r"head\.kappa"),
        (lambda: ImplicitQuantile(4, 3, samples=0), r"head\.samples"),
        (lambda: ImplicitQuantile(4, 3, midpoints=0), r"head\.midpoints"),
        (lambda: ImplicitQuantile(4, 3, cosines=0), r"head\.cosines"),
        (lambda: ImplicitQuantile(4, 3, kappa=-1), r"head\.kappa"),
        (lambda: FullQuantile(4, 3, atoms=1), r"head\.atoms"),
        (lambda: FullQuantile(4, 3, cosines=0), r"head\.cosines"),
        (lambda: FullQuantile(4, 3, kappa=-1), r"head\.kappa"),
        (lambda: FullQuantile(4, 3, fraction_lr=-1), r"head\.fraction_lr"),
        (lambda: FullQuantile(4, 3, entropy=-1), r"head\.entropy"),
        (lambda: Expected(4, 3, loss="l1"), r"head\.loss"),
        (lambda: Expected(4, 3, kappa=0), r"head\.kappa"),
    ],
)
def test_options_out_of_range_are_refused_by_name(make_it, message):
    with pytest.raises(ValueError, match=message):
        make_it()


@every_head
def test_state_numbers_are_read_or_refused_with_what_to_do(name):
    head, states = make(name, features=6), torch.tensor([[0, 5]])
    if name in ("implicit_quantile", "full_quantile"):
        for mode in (True, False):
            with pytest.raises(ValueError, match="torso=mlp"):
                head.train(mode)(states)
    else:
        one_hot = torch.nn.functional.one_hot(states, 6).double()
        assert torch.allclose(head(states).q, head(one_hot).q)


@every_head
def test_mix_with_a_greedy_policy_is_the_action_s_distribution(name):
    head = make(name)
    values = head(torch.randn(2, 5, 4).double())
    for a in range(3):
        atoms, probs = head.mix(values, torch.eye(3).double()[a].expand(2, 5, 3))
        if name == "categorical":
            assert torch.equal(atoms, head.support.expand(2, 5, -1))
            assert torch.allclose(probs, values.z[..., a, :].exp())
        elif name in ("expected", "squared", "hl_gauss"):
            assert probs is None
            assert torch.allclose(atoms, values.q[..., [a]])
        else:
            assert torch.allclose(atoms, values.z[..., a, :])
            assert probs is None or torch.equal(probs, values.probs)


@every_head
def test_mix_with_a_soft_policy_has_the_mean_of_q(name):
    head = make(name)
    values = head(torch.randn(2, 5, 4).double())
    pi = torch.randn(2, 5, 3).double().softmax(-1)
    atoms, probs = head.mix(values, pi)
    mean = atoms.mean(-1) if probs is None else (atoms * probs).sum(-1)
    assert torch.allclose(mean, (pi * values.q).sum(-1))
    assert probs is None or torch.allclose(probs.sum(-1), torch.ones(2, 5).double())


@pytest.mark.parametrize("name", ["expected", "squared"])
def test_the_expected_head_learns_the_mean_of_any_atoms(name):
    head = make(name)
    values, action = head(torch.randn(1, 4, 4).double()), torch.randint(3, (1, 4))
    y, p = targets(1, 4, count=3), torch.rand(1, 4, 3).double().softmax(-1)
    many, mean = head.loss(values, action, y, p), head.loss(values, action, (y * p).sum(-1, keepdim=True), None)
    assert torch.allclose(many[0], mean[0])
    assert torch.allclose(many[1], mean[1])


@pytest.mark.parametrize("name", ["categorical", "hl_gauss"])
def test_histogram_losses_equal_the_loop(name):
    head = make(name)
    values, action = head(torch.randn(2, 3, 4).double()), torch.randint(3, (2, 3))
    y, p = targets(2, 3, count=5), torch.rand(2, 3, 5).double().softmax(-1)
    error, td_error = head.loss(values, action, y, p)
    for i in np.ndindex(2, 3):
        if name == "categorical":
            m = oracle.project(y[i].numpy(), p[i].numpy(), head.support.numpy())
        else:
            m = oracle.hl_gauss(y[i].numpy(), p[i].numpy(), head.edges.numpy(), 0.75 * 4 / 20)
        predicted = values.z[i][action[i]].exp().detach().numpy()
        cross, divergence = oracle.cross_entropy_and_divergence(m, predicted)
        assert error[i].item() == pytest.approx(cross, rel=1e-6)
        assert td_error[i].item() == pytest.approx(divergence, rel=1e-6)
    assert (td_error > 0).all()
    itself, probs = values.z.detach().exp()[..., 0, :], values.z[..., 0, :].exp()
    if name == "categorical":  # the divergence from itself is nothing, and nothing is learnt
        own = head.loss(values, torch.zeros_like(action), head.support.expand_as(itself), itself)
        assert own[1].abs().max() < 1e-6
        gradient = torch.autograd.grad(own[0].sum(), probs, retain_graph=True, allow_unused=True)[0]
        assert gradient is None
        gradient = torch.autograd.grad(own[0].sum(), head.output.layers[-1].weight)[0]
        assert gradient.abs().max() < 1e-6


@quantiles
@pytest.mark.parametrize("kappa", [0.0, 1.0])
def test_quantile_losses_equal_the_loop(name, kappa):
    head = make(name, kappa=kappa)
    values, action = head(torch.randn(2, 3, 4).double()), torch.randint(3, (2, 3))
    y, p = targets(2, 3, count=5), torch.rand(2, 3, 5).double().softmax(-1)
    error, td_error = head.loss(values, action, y, p)
    for i in np.ndindex(2, 3):
        z, tau = values.z[i][action[i]].detach().numpy(), values.tau[i].detach().numpy()
        want = oracle.quantile_huber(z, tau, y[i].numpy(), p[i].numpy(), kappa)
        assert error[i].item() == pytest.approx(want, rel=1e-6)
        mean = sum(y[i].numpy() * p[i].numpy()) - values.q[i][action[i]].item()
        assert td_error[i].item() == pytest.approx(mean, rel=1e-6)


def test_the_value_stream_changes_the_categorical_distribution():
    head = make("categorical", output=Dueling)
    features = torch.randn(5, 4).double()
    before = head(features)
    with torch.no_grad():
        head.output.value[-1].bias[3] += 2.0
    after = head(features)
    assert not torch.allclose(before.q, after.q)
    assert (after.z[..., 3] > before.z[..., 3]).all()
    assert torch.allclose(after.z.exp().sum(-1), torch.ones(5, 3).double())


@every_head
def test_q_of_a_sample_does_not_depend_on_the_batch(name):
    head = make(name, output=Dueling).eval()
    features = torch.randn(5, 4).double()
    assert torch.allclose(head(features).q[0], head(features[:1]).q[0])


@every_head
def test_an_illegal_action_s_advantage_changes_no_legal_value(name):
    head = make(name, output=Dueling).eval()
    features, mask = torch.randn(5, 4).double(), torch.tensor([True, False, True]).expand(5, 3)
    before = head(features, mask).q[:, [0, 2]]
    unmasked = head(features).q[:, [0, 2]]
    rows = head.output.advantage[-1].out_features // 3
    with torch.no_grad():
        head.output.advantage[-1].bias[rows : 2 * rows] += torch.linspace(1, 9, rows)
    assert torch.allclose(head(features, mask).q[:, [0, 2]], before)
    assert not torch.allclose(head(features).q[:, [0, 2]], unmasked)


@every_head
def test_heads_draw_only_in_training_and_from_their_own_generator(name):
    head = make(name, output=functools.partial(Single, layer=Noisy))
    twin, features = copy.deepcopy(head), torch.randn(5, 4).double()
    for seed, network in enumerate((head, twin)):
        generator = torch.Generator().manual_seed(seed)
        for module in network.modules():
            if hasattr(module, "generator"):
                module.generator = generator
    before = torch.random.get_rng_state()
    assert not torch.allclose(head(features).q, head(features).q)
    assert not torch.allclose(head(features).q, twin(features).q)
    assert torch.equal(head.eval()(features).q, head(features).q)
    assert torch.equal(head(features).q, twin.eval()(features).q)
    assert torch.equal(torch.random.get_rng_state(), before)


@every_head
def test_every_head_learns_a_known_return_distribution(name):
    """A bandit of two arms: one pays −1 or 1 (three times of four), the other always 0.4."""
    make_it = {
        "categorical": functools.partial(Categorical, v_min=-2, v_max=2, atoms=41),
        "hl_gauss": functools.partial(HLGauss, v_min=-3, v_max=3, bins=40),
        "quantile": functools.partial(Quantile, atoms=8, kappa=0.1),
        "implicit_quantile": functools.partial(ImplicitQuantile, samples=32, midpoints=32, kappa=0.1),
        "full_quantile": functools.partial(FullQuantile, atoms=16, kappa=0.1, fraction_lr=1e-2),
    }.get(name, HEADS[name])
    head = make_it(4, 2, output=functools.partial(Single, hidden=(32,)))
    slow = head.slow_parameters() if name == "full_quantile" else []
    groups = [{"params": [p for p in head.parameters() if all(p is not s for s in slow)]}]
    optimizer = torch.optim.Adam([*groups, *([{"params": slow, "lr": 1e-4}] if slow else [])], lr=1e-2)
    action = torch.tensor([[0, 1]])
    atoms = torch.tensor([[[-1.0, 1.0], [0.4, 0.4]]])
    probs = torch.tensor([[[0.25, 0.75], [0.5, 0.5]]])
    features = torch.ones(1, 2, 4)
    for step in range(500):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / 500)
        optimizer.zero_grad()
        head.loss(head(features), action, atoms, probs)[0].mean().backward()
        optimizer.step()
    values = head.eval()(features[0, 0])
    tolerance = 0.02 if name in ("expected", "squared", "categorical", "hl_gauss") else 0.1
    assert values.q.tolist() == pytest.approx([0.5, 0.4], abs=tolerance)
    if name == "categorical":
        mass = values.z.exp()
        assert mass[0, head.support.sub(-1).abs().argmin()].item() == pytest.approx(0.25, abs=0.02)
        assert mass[0, head.support.sub(1).abs().argmin()].item() == pytest.approx(0.75, abs=0.02)
        assert mass[1, head.support.sub(0.4).abs().argmin()].item() == pytest.approx(1.0, abs=0.02)
    elif values.tau is not None:
        low, high = values.tau < 0.2, values.tau > 0.3
        assert values.z[0][low].tolist() == pytest.approx([-1.0] * int(low.sum()), abs=0.25)
        assert values.z[0][high].tolist() == pytest.approx([1.0] * int(high.sum()), abs=0.25)
        assert (values.z[1] - 0.4).abs().max() < 0.1
