import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dqn.networks.heads import Expected
from dqn.networks.layers import Linear, Table
from dqn.networks.qnetwork import QNetwork
from dqn.networks.torsos import MLP, TableTorso
from dqn.types import Spec, Values

VECTOR = Spec((4,), np.dtype(np.float32), 2)
STATES = Spec((), np.dtype(np.int64), 2, 6)
IMAGE = Spec((3, 3, 2), np.dtype(np.uint8), 2)


def test_linear_of_state_numbers_is_linear_of_their_one_hot_vectors():
    layer, x = Linear(6, 3), torch.tensor([[0, 5], [2, 2]])
    assert torch.allclose(layer(x), layer(F.one_hot(x, 6).float()))
    layer(x).sum().backward()
    assert layer.weight.grad[:, 2].tolist() == [2.0] * 3  # a state seen twice counts twice


def test_table_starts_at_its_value_without_bias():
    table = Table(6, 2, value=0.5)
    assert table.bias is None
    assert table(torch.arange(6)).unique().tolist() == [0.5]


@pytest.mark.parametrize("norm", [None, "layer"])
@pytest.mark.parametrize("spec", [VECTOR, STATES, IMAGE])
def test_mlp_reads_vectors_states_and_images_with_any_leading_shape(spec, norm):
    network = QNetwork(torso := MLP(spec, [8, 5], norm=norm), Expected(torso.features, 2))
    obs = torch.zeros(7, 3, *spec.obs_shape, dtype=torch.from_numpy(np.empty(0, spec.obs_dtype)).dtype)
    assert network(obs).q.shape == (7, 3, 2)
    assert torch.allclose(network(obs).q[0, 0], network(obs[0, :1]).q[0], atol=1e-6)


def test_uint8_is_scaled_to_the_unit_interval():
    torso = MLP(Spec((2,), np.dtype(np.uint8), 2), [4])
    x = torch.tensor([[0, 255]], dtype=torch.uint8)
    assert torch.allclose(torso(x), torso.layers(torch.tensor([[0.0, 1.0]])))


def test_wrong_parts_are_refused():
    for bad in (lambda: TableTorso(VECTOR), lambda: MLP(VECTOR, []), lambda: MLP(VECTOR, [4], norm="batch"),
                lambda: Expected(3, 2, loss="l1"), lambda: Expected(3, 2, kappa=0)):  # fmt: skip
        with pytest.raises(ValueError, match=r"torso|head|hidden"):
            bad()


@pytest.mark.parametrize(
    ("loss", "error", "slope"), [("huber", 10.0, 1.0), ("huber", 0.5, 0.5), ("squared", 10.0, 10.0)]
)
def test_gradient_of_the_loss_with_respect_to_q(loss, error, slope):
    q = torch.zeros(1, 1, 2, requires_grad=True)
    value, td_error = Expected(3, 2, loss=loss).loss(Values(q), torch.tensor([[1]]), torch.full((1, 1, 1), error), None)
    value.sum().backward()
    assert q.grad.tolist() == [[[0.0, -slope]]]
    assert td_error.item() == error


def test_broadcasts_are_refused():
    head, q = Expected(3, 2), torch.zeros(1, 4, 2)
    with pytest.raises(ValueError, match="atoms"):
        head.loss(Values(q), torch.zeros(1, 4, dtype=torch.int64), torch.zeros(1, 4), None)
    with pytest.raises(ValueError, match="equal shape"):
        head.mix(Values(q), torch.zeros(4, 2))
