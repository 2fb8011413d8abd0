"""Parameters as one vector: the same numbers, where they would lie alone, and whoever changes one changes the other."""

import copy

import pytest
import torch
from torch import nn

from dqn.learning.parameter_vector import ALIGNED, ParameterVector


def network():
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(3, 5, 2), nn.Flatten(), nn.Linear(20, 7), nn.Linear(7, 1, bias=False))
    return made.to(memory_format=torch.channels_last)


def test_the_numbers_stay_and_lie_in_the_vector():
    made, alone = network(), network()
    vector = ParameterVector([*made.parameters()])
    assert not made[0].weight.is_contiguous()  # channels last, as before
    for mine, theirs in zip(made.parameters(), alone.parameters(), strict=True):
        assert torch.equal(mine, theirs) and mine.stride() == theirs.stride()
        assert mine.data_ptr() % ALIGNED == 0
        assert mine.untyped_storage().data_ptr() == vector.vector.untyped_storage().data_ptr()
    x = torch.randn(4, 3, 3, 3)
    assert torch.equal(made(x), alone(x))


def test_a_step_of_the_vector_is_a_step_of_every_parameter():
    made, alone = network(), network()
    vector = ParameterVector([*made.parameters()])
    x = torch.randn(4, 3, 3, 3)
    for one in (made, alone):
        one(x).sum().backward()
    grads = [p.grad for p in made.parameters()]
    vector.vector.grad = vector.flat(grads)
    torch.optim.SGD([vector.vector], 0.1).step()
    torch.optim.SGD(alone.parameters(), 0.1).step()
    assert all(map(torch.equal, made.parameters(), alone.parameters()))
    assert torch.count_nonzero(vector.vector) == sum(torch.count_nonzero(p) for p in made.parameters())  # padding is 0


def test_a_parameter_without_a_gradient_gets_zeros():
    made = network()
    before = copy.deepcopy(made.state_dict())
    vector = ParameterVector([*made.parameters()])
    vector.vector.grad = vector.flat([None for _ in made.parameters()])
    torch.optim.Adam([vector.vector], 0.1).step()
    assert all(torch.equal(before[name], value) for name, value in made.state_dict().items())


def test_parameters_of_two_dtypes_are_no_vector():
    for some in ([], [nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1, dtype=torch.float64))]):
        with pytest.raises(ValueError, match="of one dtype and device"):
            ParameterVector(some)
