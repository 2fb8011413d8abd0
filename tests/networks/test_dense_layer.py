"""Where the last hidden layer stands: in the torso, or in the output after what a head or two streams need first."""

import numpy as np
import pytest
import torch
from conftest import configure, world
from torch import nn

from dqn.config import parts
from dqn.errors import UsageError
from dqn.networks.layers import Linear, Noisy
from dqn.types import Spec

VECTOR = Spec((5,), np.dtype(np.float32), 3)
STATES = Spec((), np.dtype(np.int64), 3, 7)
IMAGE = Spec((36, 36, 3), np.dtype(np.uint8), 3)
IMAGES = ("nature_cnn", "minatar_cnn", "small_cnn", "impala_cnn")
TORSOS = {"mlp": VECTOR, "mlp of states": STATES, **dict.fromkeys(IMAGES, IMAGE)}
PLAIN = ("expected", "categorical", "hl_gauss", "quantile")  # heads that read the features once
FRACTIONS = ("implicit_quantile", "full_quantile")
NUMBERS = ["tuned=none", "tuned.hidden=[16,8]", "tuned.quantiles=4", "tuned.samples=4"]


def made(torso, *overrides):
    """A network for a torso's kind of observation, with the configuration of CartPole but for some overrides."""
    hidden = ["torso.hidden=32"] if torso == "small_cnn" else []  # it has none by itself
    return parts.network(configure(*NUMBERS, f"torso={torso.split()[0]}", *hidden, *overrides), TORSOS[torso])


def seen(spec, rows=6):
    """Observations of a kind, always the same."""
    generator = torch.Generator().manual_seed(1)
    if spec.states:
        return torch.arange(rows) % spec.states
    if spec.obs_dtype == np.uint8:
        return torch.randint(256, (rows, *spec.obs_shape), generator=generator, dtype=torch.uint8)
    return torch.randn(rows, *spec.obs_shape, generator=generator)


def linears(module):
    return [m for m in module.modules() if isinstance(m, nn.Linear)]


def each_in_turn(*choices):
    """Every torso with the next of some choices: composing all pairs would take minutes."""
    return [(torso, *(one[i % len(one)] for one in choices)) for i, torso in enumerate(TORSOS)]


@pytest.mark.parametrize(("torso", "head", "norm"), each_in_turn(PLAIN, ["layer", "null", "null", "layer", "null"]))
def test_the_move_changes_no_function_where_one_stack_reads_the_features(torso, head, norm):
    """The same parameters in the same order give the same values; only the names differ, and of state numbers the draws
    (their first layer is drawn anew once the torso is made)."""
    kept, moved = (made(torso, f"head={head}", f"tuned.norm={norm}", f"dense_in={p}") for p in ("torso", "output"))
    assert len(linears(moved.torso)) == len(linears(kept.torso)) - 1
    for one, other in zip(kept.parameters(), moved.parameters(), strict=True):
        assert torch.equal(one, other) or TORSOS[torso].states
        other.data.copy_(one)
    obs = seen(TORSOS[torso])
    assert torch.equal(kept(obs).q, moved(obs).q)


@pytest.mark.parametrize(("torso", "head"), each_in_turn([*PLAIN, *FRACTIONS]))
def test_dueling_streams_have_a_hidden_layer_each(torso, head):
    """Wang et al. (2016), §4.2: nothing but the convolutions (of vectors: the first layers) is shared."""
    output = made(torso, f"head={head}", "output=dueling").head.output
    width = {"mlp": 8, "nature_cnn": 512, "minatar_cnn": 128, "small_cnn": 32, "impala_cnn": 256}[torso.split()[0]]
    for stream in (output.value, output.advantage):
        first, last = linears(stream)
        assert (first.out_features, last.in_features) == (width, width)
    assert linears(output.value)[0].weight.data_ptr() != linears(output.advantage)[0].weight.data_ptr()


@pytest.mark.parametrize(
    ("torso", "head", "output"), each_in_turn(FRACTIONS, ["single", "dueling", "dueling", "single"])
)
def test_fractions_enter_before_the_last_hidden_layer(torso, head, output):
    """Dabney et al. (2018b), eq. 4 and fig. 1: φ(s) ⊙ ψ(τ) goes through a hidden layer, so z is not linear in it."""
    network = made(torso, f"head={head}", f"output={output}").eval()
    width = network.torso.features
    assert network.head.embedding.linear.out_features == width
    hidden = [m for m in linears(network.head.output) if m.in_features == width]
    assert len(hidden) == (2 if output == "dueling" else 1)
    assert all(m.out_features not in (1, 3) for m in hidden)  # a hidden layer follows, not the values
    features = network.torso(seen(TORSOS[torso]))
    tau = torch.linspace(0.1, 0.9, 5)
    embedded = network.head.embedding(features, tau.expand(len(features), -1))
    z, negative = network.head.output(embedded), network.head.output(-embedded)
    constant = network.head.output(torch.zeros_like(embedded))
    assert not torch.allclose(z - constant, constant - negative, atol=1e-4)  # not linear after the product


@pytest.mark.parametrize("core", ["lstm", "gru"])
def test_in_front_of_a_core_the_layer_stays_in_the_torso(core):
    """It is what the core reads; the streams after the core have the layers that `output.hidden` names."""
    network = made("nature_cnn", f"core={core}", "output=dueling", "output.hidden=[32]")
    assert [m.out_features for m in linears(network.torso)] == [512]
    assert [(m.in_features, m.out_features) for m in linears(network.head.output.value)] == [(64, 32), (32, 1)]


def test_the_moved_layer_stands_in_front_of_the_outputs_own_and_has_the_torsos_norm():
    network = made("mlp", "output=dueling", "output.hidden=[5]", "tuned.norm=layer")
    kinds = [(type(m).__name__, getattr(m, "out_features", None)) for m in network.head.output.value]
    assert [k for k in kinds if k[0] != "ReLU"] == [
        ("Linear", 8), ("LayerNorm", None), ("Linear", 5), ("LayerNorm", None), ("Linear", 1),
    ]  # fmt: skip


def test_the_moved_layer_is_of_the_outputs_kind():
    network = made("mlp", "output=dueling", "layer=noisy")
    assert [type(m) for m in linears(network.torso)] == [Linear]
    assert [type(m) for m in linears(network.head)] == [Noisy] * 4


@pytest.mark.parametrize(
    "overrides",
    [
        ["env=cartpole", "torso.hidden=[64]", "tuned.norm=layer"],  # the only layer in front of a vector
        ["env=chain", "torso=table"],
        [*world("test/DictImage-v0"), "torso=dict", "torso@torso.image=minatar_cnn", "replay.capacity=1000"],
        ["env=cartpole", "core=lstm", "torso.hidden=[64,32]"],
        ["env=cartpole", "torso._target_=worlds.Flat", "~torso.hidden", "~torso.norm", "~torso.layer"],
    ],
    ids=["one layer", "table", "dict", "core", "own"],
)
def test_where_no_layer_can_move_all_stays_and_the_card_says_what_to_set(wired, overrides):
    both = [wired(*overrides, "output=dueling", f"dense_in={p}", "steps=100") for p in ("torso", "output")]
    kept, moved = (run.trainer.learner.online.state_dict() for run in both)
    assert kept.keys() == moved.keys()
    assert all(torch.equal(kept[name], moved[name]) for name in kept)
    assert "output.hidden=[" in both[1].summary
    assert "output.hidden=[" not in both[0].summary


def test_the_card_shows_the_network_as_it_is(wired):
    card = wired("env=cartpole", "output=dueling", "tuned.hidden=[48,24]", "steps=100").summary
    assert "MLP(hidden=[48]" in card
    assert "Dueling(hidden=[24], layer=Linear(), norm=layer)" in card


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["dense_in=head"], "dense_in must be torso or output, got 'head'."),
        (["output=dueling", "torso.hidden=[8,0]"], "torso.hidden must name at least one positive width, got [8, 0]."),
        (["output=dueling", "torso.hidden=[]"], "torso.hidden must name at least one positive width, got []."),
    ],
)
def test_bad_input_is_one_sentence_about_what_was_given(wired, overrides, says):
    with pytest.raises(UsageError) as refused:
        wired(*overrides)
    assert says in str(refused.value)
