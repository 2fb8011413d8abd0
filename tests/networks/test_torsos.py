"""Torsos: shapes, scale and the sizes the papers give."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from dqn.networks.convs import ImpalaCNN, MinAtarCNN, NatureCNN, SmallCNN, image_layout
from dqn.networks.layers import Linear, Table
from dqn.networks.torsos import MLP, DictTorso, TableTorso
from dqn.types import Spec

F4, U1, B1, I8 = (np.dtype(name) for name in ("float32", "uint8", "bool", "int64"))
CNNS = [MinAtarCNN, NatureCNN, SmallCNN, ImpalaCNN]
ATARI = Spec((84, 84, 4), U1, 2)
VECTOR, NUMBER, BITS = Spec((3,), F4, 2), Spec((), I8, 2, 6), Spec((2, 2), B1, 2)
DICT = Spec(
    (0,), U1, 2, 0, (("image", Spec((44, 44, 1), U1, 2)), ("own.number", NUMBER), ("bits", BITS), ("v", VECTOR))
)
STAGES = [(4, 16), (16, 32), (32, 32)]  # a first convolution and four residual ones each, all 3 × 3
IMPALA = sum(9 * i * o + o + 4 * (9 * o * o + o) for i, o in STAGES) + 3872 * 256 + 256


def size(module):
    return sum(p.numel() for p in module.parameters())


def seen(*lead):
    """A batch of what DICT shows."""
    return {
        "image": torch.randint(256, (*lead, 44, 44, 1), dtype=torch.uint8),
        "own.number": torch.randint(6, lead),
        "bits": torch.rand(*lead, 2, 2) < 0.5,
        "v": torch.randn(*lead, 3),
    }


@pytest.mark.parametrize(
    ("torso", "features", "parameters"),
    [
        # Mnih et al. (2015): 8224 + 32832 + 36928 + 3136·512 + 512
        (lambda: NatureCNN(ATARI), 512, 1_684_128),
        (lambda: NatureCNN(ATARI, hidden=None), 3136, 77_984),
        # van Hasselt et al. (2019): 576 features
        (lambda: SmallCNN(ATARI), 576, 32 * 4 * 25 + 32 + 64 * 32 * 25 + 64),
        # Young & Tian (2019): 16 of 3 × 3 on 10 × 10, 1024 → 128
        (lambda: MinAtarCNN(Spec((10, 10, 4), B1, 6)), 128, 16 * 4 * 9 + 16 + 1024 * 128 + 128),
        # Espeholt et al. (2018): 84 → 42 → 21 → 11, 32 · 11² = 3872 → 256
        (lambda: ImpalaCNN(ATARI), 256, IMPALA),
        # Clark et al. (2024): 64 channels pooled to 6 × 6
        (lambda: ImpalaCNN(ATARI, width=2, spectral=True, pool=6, hidden=None), 64 * 36, None),
    ],
)
def test_the_papers_networks_have_the_papers_sizes(torso, features, parameters):
    torso = torso()
    assert torso.features == features
    assert parameters is None or size(torso) == parameters


@pytest.mark.parametrize("cnn", CNNS)
@pytest.mark.parametrize("norm", [None, "layer"])
def test_one_image_has_the_same_features_in_either_layout_and_behind_any_axes(cnn, norm):
    torch.manual_seed(0)
    hwc = cnn(Spec((44, 40, 3), U1, 2), norm=norm)
    chw = cnn(Spec((3, 44, 40), U1, 2), norm=norm)
    chw.load_state_dict(hwc.state_dict())
    obs = torch.randint(256, (2, 3, 44, 40, 3), dtype=torch.uint8)
    features = hwc(obs)
    assert features.shape == (2, 3, hwc.features)
    assert features.std() > 0
    assert torch.allclose(features, chw(obs.permute(0, 1, 4, 2, 3)), atol=1e-5)
    assert torch.allclose(features[1, 2], hwc(obs[1, 2]), atol=1e-5)
    assert hwc(obs[:0]).shape == (0, 3, hwc.features)
    grey = cnn(Spec((44, 40), U1, 2), norm=norm)
    flat = cnn(Spec((44, 40, 1), U1, 2), norm=norm)
    grey.load_state_dict(flat.state_dict())
    assert torch.allclose(grey(obs[..., 0]), flat(obs[..., :1]), atol=1e-5)


@pytest.mark.parametrize("cnn", CNNS)
def test_bytes_are_scaled_to_the_unit_interval_and_bits_are_0_and_1(cnn):
    torso = cnn(Spec((40, 40, 2), U1, 2))
    bits = torch.rand(2, 40, 40, 2) < 0.5
    images = bits.float().permute(0, 3, 1, 2)
    want = torso.full(torso.body(images))
    assert torch.allclose(torso(bits.to(torch.uint8) * 255), want, atol=1e-6)
    assert torch.allclose(torso(bits), want, atol=1e-6)
    of_bits = cnn(Spec((40, 40, 2), np.dtype(bool), 2))
    of_bits.load_state_dict(torso.state_dict())
    assert torch.equal(of_bits(bits), torso(bits))
    assert torch.equal(of_bits(bits.to(torch.uint8)), torso(bits))  # as the replay memory gives them


@pytest.mark.parametrize("cnn", CNNS)
@pytest.mark.parametrize("hidden", [32, None])
def test_norm_stands_behind_every_layer_over_the_whole_image(cnn, hidden):
    plain, torso = (cnn(Spec((40, 40, 2), U1, 2), hidden=hidden, norm=norm) for norm in (None, "layer"))
    norms = [m for m in torso.modules() if isinstance(m, (nn.GroupNorm, nn.LayerNorm))]
    layers = [m for m in torso.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    # Impala's are before activations: three first convolutions have none of their own, the last stage's end has one
    assert len(norms) == len(layers) - (2 if cnn is ImpalaCNN else 0)
    assert not [m for m in plain.modules() if isinstance(m, (nn.GroupNorm, nn.LayerNorm))]
    got = []
    for norm in norms:
        norm.register_forward_hook(lambda module, inputs, output: got.append(output))
    torso(torch.randint(256, (3, 40, 40, 2), dtype=torch.uint8))
    for output in got:
        assert torch.allclose(output.flatten(1).mean(1), torch.zeros(3), atol=1e-4)
        assert torch.allclose(output.flatten(1).var(1, correction=0), torch.ones(3), atol=2e-2)
    assert len(got) == len(norms)


def test_the_linear_map_is_the_one_that_is_given():
    def layer(before, after):
        return Table(before, after, value=0.25)

    for torso in (NatureCNN(Spec((40, 40, 2), U1, 2), layer=layer), MLP(VECTOR, [4], layer=layer)):
        assert [m.weight.unique().tolist() for m in torso.modules() if isinstance(m, Table)] == [[0.25]]


@pytest.mark.parametrize(
    ("shape", "layout", "want"),
    [
        ((84, 84, 4), "auto", "hwc"),
        ((4, 84, 84), "auto", "chw"),
        ((10, 10, 7), "auto", "hwc"),
        ((210, 160), "auto", "hw"),
        ((210, 160), "chw", "hw"),
        ((10, 10, 10), "chw", "chw"),
        ((84, 84, 40), "hwc", "hwc"),
    ],
)
def test_where_the_channels_are(shape, layout, want):
    assert image_layout(shape, layout) == want


def test_minatars_cube_is_height_width_channels():  # Seaquest shows 10 channels of 10 × 10
    torch.manual_seed(0)
    auto, hwc, chw = (MinAtarCNN(Spec((10, 10, 10), B1, 6), layout=name) for name in ("auto", "hwc", "chw"))
    obs = torch.rand(1, 10, 10, 10) < 0.5
    for other in (hwc, chw):
        other.load_state_dict(auto.state_dict())
    assert torch.equal(auto(obs), hwc(obs))
    assert not torch.allclose(auto(obs), chw(obs), atol=1e-3)


@pytest.mark.parametrize(
    ("torso", "says"),
    [
        (
            lambda: NatureCNN(VECTOR),
            r"torso=nature_cnn needs images \(H, W, C\) or stacks of them, got \(3,\); choose torso=mlp",
        ),
        (lambda: MinAtarCNN(NUMBER), "torso=minatar_cnn needs images"),
        (lambda: SmallCNN(DICT), "choose torso=dict"),
        (lambda: NatureCNN(Spec((30, 30, 3), U1, 2)), "30 × 30 are too small for torso=nature_cnn"),
        (lambda: SmallCNN(Spec((3, 20, 24), U1, 2)), "20 × 24 are too small for torso=small_cnn"),
        (lambda: NatureCNN(Spec((84, 84, 84), U1, 2)), "set torso.layout=hwc or chw"),
        (lambda: NatureCNN(Spec((84, 90, 60), U1, 2)), "set torso.layout=hwc or chw"),
        (lambda: NatureCNN(ATARI, layout="cwh"), "torso.layout must be auto, hwc or chw, got 'cwh'"),
        (
            lambda: NatureCNN(ATARI, hidden=0),
            "torso.hidden must be a whole number ≥ 1 or null for torso=nature_cnn, got 0",
        ),
        (lambda: NatureCNN(ATARI, norm="batch"), "torso.norm must be null or 'layer', got 'batch'"),
        (lambda: ImpalaCNN(ATARI, width=0), "torso.width must be ≥ 1"),
        (lambda: ImpalaCNN(ATARI, pool=0), "torso.pool ≥ 1 or null"),
        (lambda: DictTorso(VECTOR, NatureCNN, TableTorso), "torso=dict needs a Dict"),
        (lambda: DictTorso(DICT, NatureCNN, lambda s: MLP(s, [3]), {"w": TableTorso}), r"torso.keys names \['w'\]"),
        (lambda: TableTorso(DICT), "torso=table needs numbered states"),
    ],
)
def test_what_a_torso_cannot_see_is_refused_in_one_sentence(torso, says):
    with pytest.raises(ValueError, match=says) as error:
        torso()
    assert "\n" not in str(error.value)


def test_spectral_norm_holds_every_residual_convolution_at_one():
    torch.manual_seed(0)
    torso = ImpalaCNN(Spec((16, 16, 2), U1, 2), spectral=True, pool=6)
    obs = torch.randint(256, (2, 16, 16, 2), dtype=torch.uint8)
    for _ in range(200):  # a power iteration each
        torso(obs)
    held = [m for m in torso.modules() if isinstance(m, nn.Conv2d) and hasattr(m, "parametrizations")]
    assert len(held) == 12
    for conv in held:
        assert abs(torch.linalg.matrix_norm(conv.weight.flatten(1), 2).item() - 1) < 1e-2
    twin = copy.deepcopy(torso).eval()
    before = {name: buffer.clone() for name, buffer in twin.named_buffers()}
    assert torch.allclose(twin(obs), torso.eval()(obs))
    assert all(torch.equal(buffer, before[name]) for name, buffer in twin.named_buffers())


def test_small_images_and_all_options_of_impala():
    for pool, features in ((None, 2 * 2 * 32), (6, 6 * 6 * 32), (1, 32)):
        torso = ImpalaCNN(Spec((10, 10, 4), B1, 2), pool=pool, hidden=None)
        assert torso(torch.zeros(5, 10, 10, 4, dtype=torch.bool)).shape == (5, features)


def test_mlp_is_what_it_was_to_the_bit():
    torch.manual_seed(1)
    obs = torch.randint(256, (5, 2, 3, 3, 2), dtype=torch.uint8)
    for norm in (None, "layer"):
        torso = MLP(Spec((3, 3, 2), U1, 2), [8, 5], norm=norm)
        assert torch.equal(torso(obs), torso.layers(obs.flatten(-3).to(torch.float32) / 255))
    vector, states = MLP(VECTOR, [8]), MLP(NUMBER, [8])
    x, s = torch.randn(4, 3), torch.randint(6, (4,))
    assert torch.equal(vector(x), vector.layers(x))
    assert torch.equal(states(s), states.layers(s))
    assert states.layers[0].weight.abs().max() > 6**-0.5  # a fan-in of one


def test_mlp_sees_bits_as_numbers_and_a_dict_as_one_vector():
    bits = MLP(BITS, [4])
    x = torch.tensor([[[True, False], [False, True]]])
    assert torch.equal(bits(x), bits.layers(torch.tensor([[1.0, 0.0, 0.0, 1.0]])))
    torso, obs = MLP(DICT, [7]), seen(2, 3)
    assert torso.layers[0].in_features == 44 * 44 + 6 + 4 + 3
    one_hot = torch.eye(6)[obs["own.number"]]
    want = torch.cat([obs["image"].flatten(2) / 255, one_hot, obs["bits"].flatten(2).float(), obs["v"]], -1)
    assert torch.equal(torso(obs), torso.layers(want))
    scalar = MLP(Spec((), F4, 2), [4])
    assert scalar(torch.zeros(2, 3)).shape == (2, 3, 4)


def test_a_dict_torso_gives_each_entry_a_torso_of_its_own():
    def vector(spec):
        return MLP(spec, [5])

    obs = seen(2, 3)
    torso = DictTorso(DICT, NatureCNN, vector, {"own.number": TableTorso, "v": lambda spec: MLP(spec, [9])})
    assert [type(each) for each in torso.torsos] == [NatureCNN, TableTorso, MLP, MLP]
    assert torso.features == 512 + 6 + 5 + 9
    got = torso(obs)
    assert got.shape == (2, 3, torso.features)
    want = [each(obs[name]) for each, name in zip(torso.torsos, torso.names, strict=True)]
    want[1] = torch.eye(6)[obs["own.number"]]
    assert torch.equal(got, torch.cat(want, -1))
    got.sum().backward()
    assert all(p.grad is not None for p in torso.parameters())
    looked_up = DictTorso(DICT, NatureCNN, vector)  # a number enters its own torso through a look-up
    assert isinstance(looked_up.torsos[1].layers[0], Linear)
    assert looked_up(obs).shape == (2, 3, 512 + 15)
