"""Rewrites for images on a CPU give what the operations that they stand for give."""

import pytest
import torch

from dqn.execution.inductor import compiled
from dqn.execution.inductor.images import BYTES, PATCHES
from dqn.execution.inductor.rewrites import REWRITES
from dqn.execution.inductor.tracing import trace

aten = torch.ops.aten


def rewritten(step, *args):
    """The results of the traced step, compared with those of the step, and what it calls."""
    graph, _, states = trace(step, None, *args, rewrites=REWRITES)
    torch.testing.assert_close(graph(*states, *args), step(*args))
    return [node.target for node in graph.graph.nodes if node.op == "call_function"]


def noise(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("images", "channels", "size", "kernel"), [(6, 4, (10, 10), 3), (3, 2, (7, 9), (2, 4))])
def test_a_convolution_of_small_images_is_a_product(images, channels, size, kernel, last):
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(channels, 5, kernel)
    x = torch.randn(images, channels, *size)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)

    def step(x):
        y = layer(x)
        return y, *torch.autograd.grad(y.relu().square().sum(), [layer.weight, layer.bias])

    calls = rewritten(step, x)
    assert calls.count(aten.mm.default) == 2
    assert aten.convolution.default not in calls
    assert aten.convolution_backward.default not in calls


@pytest.mark.parametrize(
    ("options", "shape"),
    [({"stride": 2}, (6, 4, 10, 10)), ({"padding": 1}, (6, 4, 10, 10)), ({"dilation": 2}, (6, 4, 10, 10)),
     ({"groups": 2}, (6, 4, 10, 10)), ({}, (1, 4, 10, 10)), ({}, (PATCHES // 64 // 36 + 1, 4, 10, 10)),
     ({}, (4, 10, 10))],
    ids=["stride", "padding", "dilation", "groups", "one image", "many images", "no batch"],
)  # fmt: skip
def test_any_other_convolution_stays(options, shape):
    layer, x = torch.nn.Conv2d(4, 4, 3, **options), torch.randn(shape)

    def step(x):
        y = layer(x)
        return y, *torch.autograd.grad(y.square().sum(), [layer.weight, layer.bias])

    assert aten.convolution.default in rewritten(step, x)


def test_a_convolution_whose_input_has_a_gradient_keeps_its_backward_pass():
    torch.manual_seed(0)
    layer, x = torch.nn.Conv2d(4, 4, 3, bias=False), torch.randn(6, 4, 10, 10, requires_grad=True)

    def step(x):
        y = layer(x)
        return y, *torch.autograd.grad(y.square().sum(), [layer.weight, x])

    calls = rewritten(step, x)
    assert aten.mm.default in calls
    assert aten.convolution_backward.default in calls


@pytest.mark.parametrize("row", [(8, 8), (84, 84), (3, 5), ()])
def test_rows_of_bytes_are_gathered_and_masked_in_words(row):
    frames, at, there = noise(20, *row), torch.randint(0, 20, (2, 3, 4)), torch.rand(2, 3, 4) > 0.3

    def step(frames, at, there):
        stacks = frames.index_select(0, at.flatten()).unflatten(0, at.shape)
        return stacks, stacks * there.reshape(*at.shape, *[1] * len(row))

    calls = rewritten(step, frames, at, there)
    assert (aten.bitwise_and.Tensor in calls) == (aten.view.dtype in calls) == (len(row) > 0 and row != (3, 5))


@pytest.mark.parametrize(
    ("x", "other"),
    [(noise(3, 16), torch.rand(3, 16) > 0.5), (noise(3, 16), torch.rand(16) > 0.5), (noise(3, 16), noise(3, 1)),
     (torch.rand(3, 16), torch.rand(3, 1) > 0.5), (noise(16, 3).t(), torch.rand(3, 1) > 0.5),
     (noise(49)[1:].view(3, 16), torch.rand(3, 1) > 0.5), (noise(1, 16), torch.rand(3, 1) > 0.5)],
    ids=["each", "columns", "numbers", "floats", "turned", "shifted", "broadcast"],
)  # fmt: skip
def test_any_other_product_with_bytes_stays(x, other):
    assert aten.mul.Tensor in rewritten(lambda x, other: x * other, x, other)


@pytest.mark.parametrize(("count", "calls"), [(BYTES, 1), (BYTES - 1, 0)])
def test_many_bytes_become_floats_by_torchs_own_code(count, calls):
    def step(x):
        return x.float() / 255, x.double(), x.bool().float()

    assert rewritten(step, noise(count)).count(torch.ops.dqn.floats.default) == calls


@pytest.mark.skipif(bool(compiled.compiler_missing()), reason=compiled.compiler_missing())
@pytest.mark.parametrize("last", [False, True])
def test_an_update_from_frames_compiled_is_the_one_as_written(last):
    """Gathered, masked, in floats, convolved and differentiated in one program."""
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(4, 8, 3)
    frames, at, there = noise(20, 16, 16), torch.randint(0, 20, (2, 8, 4)), torch.rand(2, 8, 4) > 0.3

    def step(frames, at, there):
        stacks = frames.index_select(0, at.flatten()).unflatten(0, at.shape) * there[..., None, None]
        images = stacks.float() / 255
        if last:
            images = images.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (2, 8))
        later, now = layer(images[1]), layer(images[0])
        return now, *torch.autograd.grad((now - later.detach()).relu().mean(), [layer.weight, layer.bias])

    results = compiled.record(step, None, frames, at, there)(frames, at, there)
    torch.testing.assert_close(tuple(results), step(frames, at, there))
