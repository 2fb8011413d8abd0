import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dqn.networks.layers import Embedding, Linear, Noisy, Spectral, Table
from dqn.networks.outputs import Dueling, Single


@pytest.mark.parametrize("kind", [Linear, Table, Noisy, Spectral])
def test_state_numbers_are_one_hot_vectors_to_every_layer(kind):
    layer, x = kind(6, 3).eval(), torch.tensor([[0, 5], [2, 2]])
    with torch.no_grad():
        layer.weight.copy_(torch.randn(3, 6)) if kind is Table else None
    assert torch.allclose(layer(x), layer(F.one_hot(x, 6).float()), atol=1e-6)
    layer.train()(x).sum().backward()
    assert all(p.grad is not None for p in layer.parameters())


def noise(layer):
    """What the noise adds to a zero-mean layer: its training output at x = 1 less its mean output."""
    x = torch.ones(1, layer.in_features, dtype=layer.weight.dtype)
    return layer(x) - F.linear(x, layer.weight, layer.bias)


def test_noise_is_fresh_in_every_pass_and_one_for_the_batch():
    layer = Noisy(4, 3)
    x = torch.randn(1, 4).expand(5, 4)
    first, second = layer(x), layer(x)
    assert (first != second).any()
    assert (first == first[:1]).all()
    states = layer(torch.zeros(5, dtype=torch.int64))
    assert (states == states[:1]).all()


def test_networks_draw_from_their_own_generators():
    online = Noisy(4, 3)
    target = copy.deepcopy(online)
    online.generator, target.generator = torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)
    before = torch.random.get_rng_state()
    mine, theirs, again = noise(online), noise(target), noise(online)
    assert (mine != theirs).all()
    assert (mine != again).all()
    online.generator.manual_seed(0)
    assert torch.equal(noise(online), mine)
    assert torch.equal(torch.random.get_rng_state(), before)  # the global stream was left alone


def test_evaluation_is_the_mean_weights_and_draws_nothing():
    layer = Noisy(4, 3).eval()
    before, x = torch.random.get_rng_state(), torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("sigma0", [0.0, 0.5, 2.0])
def test_sigma0_is_honoured(sigma0):
    torch.manual_seed(0)
    layer = Noisy(16, 3, sigma0=sigma0)
    assert torch.equal(layer.weight_sigma, torch.full((3, 16), sigma0 / 4))
    assert torch.equal(layer.bias_sigma, torch.full((3,), sigma0 / 4))
    drawn = torch.stack([noise(layer)[0] for _ in range(4000)])
    # var = σ²(Σ_i E[f²]E[f²] + E[f²]) + cross terms of mean 0, with E[f(ε)²] = E|ε| = √(2/π) and E f = 0
    mean_abs = (2 / np.pi) ** 0.5
    want = (sigma0 / 4) * (16 * mean_abs**2 + mean_abs) ** 0.5
    assert drawn.std(0).tolist() == pytest.approx([want] * 3, rel=0.06, abs=1e-6)
    assert drawn.mean(0).abs().max().item() <= 5 * want / 4000**0.5 + 1e-6


def test_the_noise_is_factorised():
    """w − μ = σ f(ε_out) f(ε_in)ᵀ has rank one, and the bias has the outputs' factor."""
    layer = Noisy(5, 4)
    layer.generator = torch.Generator()

    def at(x):
        layer.generator.manual_seed(3)
        return layer(x) - F.linear(x, layer.weight, layer.bias)

    sigma = 0.5 / 5**0.5
    bias = at(torch.zeros(1, 5))[0] / sigma  # f(ε_out)
    weights = torch.stack([at(row[None])[0] / sigma - bias for row in torch.eye(5)], 1)  # [out, in]
    ahead = weights[0] / bias[0]
    assert torch.allclose(weights, torch.outer(bias, ahead), atol=1e-4)
    layer.generator.manual_seed(3)
    raw = torch.randn(9, generator=layer.generator)
    assert torch.allclose(torch.cat([ahead, bias]), raw.sign() * raw.abs().sqrt(), atol=1e-4)


def test_noise_is_learnt():
    layer = Noisy(4, 3)
    layer(torch.randn(5, 4)).square().sum().backward()
    assert layer.weight_sigma.grad.abs().sum() > 0
    assert layer.bias_sigma.grad.abs().sum() > 0


def test_noisy_means_start_uniform_within_one_over_root_in():
    layer = Noisy(100, 50)
    for p in (layer.weight, layer.bias):
        assert p.abs().max() <= 0.1
    assert layer.weight.std().item() == pytest.approx(0.1 / 3**0.5, rel=0.05)


def test_a_negative_sigma0_is_refused():
    with pytest.raises(ValueError, match=r"layer\.sigma0"):
        Noisy(4, 3, sigma0=-0.1)


def test_spectral_divides_by_the_largest_singular_value_and_survives_a_copy():
    layer = Spectral(6, 4)
    for _ in range(50):
        layer(torch.zeros(1, 6))
    twin = copy.deepcopy(layer).eval()
    norm = torch.linalg.matrix_norm(twin.weight, 2).item()
    assert norm == pytest.approx(1.0, abs=1e-3)
    assert torch.linalg.matrix_norm(twin.parametrizations.weight.original, 2).item() != pytest.approx(1.0, abs=0.01)
    assert twin.parametrizations.weight.original.data_ptr() != layer.parametrizations.weight.original.data_ptr()
    twin.load_state_dict(layer.state_dict())


def test_the_embedding_is_the_published_one():
    layer, phi, tau = Embedding(3, 8).double(), torch.randn(2, 3).double(), torch.rand(2, 4).double()
    got = layer(phi, tau)
    w, b = layer.linear.weight.detach().numpy(), layer.linear.bias.detach().numpy()
    for i in range(2):
        for n in range(4):
            waves = np.array([np.cos(np.pi * k * tau[i, n].item()) for k in range(8)])
            want = phi[i].numpy() * np.maximum(w @ waves + b, 0)
            assert got[i, n].detach().numpy() == pytest.approx(want, abs=1e-5)


@pytest.mark.parametrize("kind", [Linear, Noisy, Spectral])
@pytest.mark.parametrize("output", [Single, Dueling])
@pytest.mark.parametrize(("hidden", "norm"), [((), None), ((5,), None), ((5, 4), "layer")])
def test_outputs_have_an_entry_for_every_action_and_atom(kind, output, hidden, norm):
    module = output(6, 3, 2, hidden=hidden, layer=kind, norm=norm).eval()
    x = torch.randint(6, (7, 4))
    assert module(x).shape == (7, 4, 3, 2)
    assert torch.allclose(module(x), module(F.one_hot(x, 6).float()), atol=1e-6)
    assert torch.allclose(module(x)[0, 0], module(x[0, 0]), atol=1e-6)


def test_a_plain_output_draws_what_one_linear_layer_draws():
    torch.manual_seed(0)
    single = Single(6, 3)
    torch.manual_seed(0)
    layer = torch.nn.Linear(6, 3)
    assert all(map(torch.equal, single.parameters(), layer.parameters()))
    x = torch.randn(2, 6)
    assert torch.equal(single(x).squeeze(-1), layer(x))


def test_hidden_layers_are_rectified():
    single = Single(2, 1, hidden=(3,))
    first, last = single.layers[0], single.layers[-1]
    x = torch.randn(5, 2)
    assert torch.allclose(single(x)[..., 0], last(first(x).clamp(min=0)))


@pytest.mark.parametrize("output", [Single, Dueling])
def test_wrong_output_options_are_refused(output):
    for bad in ({"hidden": (0,)}, {"hidden": (4,), "norm": "batch"}, {"norm": "layer"}):
        with pytest.raises(ValueError, match=r"output\.(hidden|norm)"):
            output(6, 3, **bad)


def test_dueling_is_the_equation():
    module = Dueling(4, 3, 2)
    x = torch.randn(5, 4)
    value, advantage = module.value(x), module.advantage(x).reshape(5, 3, 2)
    for b in range(5):
        for n in range(2):
            mean = sum(advantage[b, a, n] for a in range(3)) / 3
            for a in range(3):
                want = (value[b, n] + advantage[b, a, n] - mean).item()
                assert module(x)[b, a, n].item() == pytest.approx(want, abs=1e-6)


def test_dueling_of_a_sample_does_not_depend_on_the_batch():
    module, x = Dueling(4, 3, 2).double(), torch.randn(5, 4).double()
    mask = torch.tensor([[True, False, True]]).expand(5, 3)
    other = x.clone()
    other[1:] *= 100
    for m in (None, mask):
        assert torch.allclose(module(x, m)[0], module(other, m)[0], atol=1e-12)
        assert torch.allclose(module(x, m)[0], module(x[0], None if m is None else m[0]), atol=1e-12)


@pytest.mark.parametrize("illegal", [1e9, -1e9, float("inf")])
def test_an_illegal_action_s_advantage_changes_nothing(illegal):
    module, x = Dueling(4, 3, 2), torch.randn(5, 4)
    mask = torch.tensor([True, False, True]).expand(5, 3)
    before = module(x, mask)[:, [0, 2]]
    assert torch.allclose(before.mean(1), module.value(x), atol=1e-5)  # the mean over legal actions is V
    with torch.no_grad():
        module.advantage[-1].bias[2:4] = illegal
    assert torch.equal(module(x, mask)[:, [0, 2]], before)
    assert not torch.allclose(module(x, None)[:, [0, 2]], before)


def test_a_mask_without_legal_actions_stays_finite_and_a_wrong_one_is_refused():
    module, x = Dueling(4, 3, 2), torch.randn(5, 4)
    assert module(x, torch.zeros(5, 3, dtype=torch.bool)).isfinite().all()
    for bad in (torch.ones(3, dtype=torch.bool), torch.ones(5, 2, dtype=torch.bool)):
        with pytest.raises(ValueError, match="mask"):
            module(x, bad)
