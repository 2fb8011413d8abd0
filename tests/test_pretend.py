"""The rules of a GPU as the tests need them; on a machine that has one the same tests show that they are its own."""

import pytest
import torch

pytestmark = pytest.mark.gpu
CUDA = "cuda"


def captured(step, *generators):
    """step() captured, as it was not run yet."""
    graph = torch.cuda.CUDAGraph()
    for generator in generators:
        graph.register_generator_state(generator)
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        result = step()
    return graph, result


def test_tensors_of_two_devices_do_not_meet():
    here, there = torch.ones(3), torch.ones(3, device=CUDA)
    assert there.device.type == "cuda" and (there + torch.tensor(1.0)).tolist() == [2.0] * 3
    for wrong in (lambda: here + there, lambda: torch.cat([here, there]), lambda: torch.mm(here[None], there[:, None])):
        with pytest.raises(RuntimeError, match="device"):
            wrong()
    with pytest.raises(RuntimeError, match="generator"):
        torch.rand(3, device=CUDA, generator=torch.Generator())
    with pytest.raises(TypeError):
        there.numpy()
    assert there.cpu().numpy().tolist() == (here.to(CUDA) * there).tolist() == [1.0] * 3


def test_gradients_and_optimizers_stay_on_the_device():
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
    before = [p.detach().clone() for p in network.parameters()]
    optimizer = torch.optim.Adam(network.to(CUDA).parameters(), fused=True)
    network(torch.ones(2, 3, device=CUDA)).sum().backward()
    optimizer.step()
    assert all(p.device.type == p.grad.device.type == "cuda" for p in network.parameters())
    assert not all(torch.equal(p.detach().cpu(), x) for p, x in zip(network.parameters(), before, strict=True))


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x[0].item(),
        lambda x: x.cpu(),
        lambda x: x[x > 1],
        lambda x: x.nonzero(),
        lambda x: torch.ones(3).to(CUDA),
        lambda x: x.__setitem__(torch.zeros(1, dtype=torch.int64, device=CUDA), 1.0),
    ],
)
def test_waiting_is_an_error_where_it_is_forbidden(wait):
    x = torch.arange(3.0, device=CUDA)
    wait(x)
    torch.cuda.set_sync_debug_mode("error")
    try:
        with pytest.raises(RuntimeError, match="synchroniz"):
            wait(x)
        x.add_(1).clamp_(max=2).index_select(0, x.to(torch.int64).clamp(max=2))
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_graph_repeats_what_was_done_on_the_same_memory():
    x, factor = torch.ones(2, device=CUDA), 2
    graph, doubled = captured(lambda: x.add_(1) * factor)
    assert x.tolist() == [1, 1]  # nothing was done
    for value in (4, 6):
        graph.replay()
        assert doubled.tolist() == [value] * 2
    factor = 100  # a number of Python's is what it was
    x.fill_(9)
    graph.replay()
    assert (x.tolist(), doubled.tolist()) == ([10, 10], [20, 20])
    with pytest.raises(RuntimeError):
        captured(lambda: x.sum().item())


def test_a_graph_draws_on():
    generator = torch.Generator(CUDA).manual_seed(3)
    wanted = [torch.rand(2, device=CUDA, generator=generator).tolist() for _ in range(2)]
    generator.manual_seed(3)
    graph, drawn = captured(lambda: torch.rand(2, device=CUDA, generator=generator), generator)
    for numbers in wanted:
        graph.replay()
        assert drawn.tolist() == numbers
    with pytest.raises(RuntimeError):
        captured(lambda: torch.rand(2, device=CUDA, generator=torch.Generator(CUDA)))
