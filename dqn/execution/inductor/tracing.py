"""A step as a graph of tensor operations.

It is traced as it is: run on tensors without numbers, while every operation below autograd is written down, so that
sampling, both networks, the backward pass, clipping and the optimizer lie in one graph. Nothing is changed by that. The
tensors which the step reads and writes become the graph's inputs, and so do its random numbers: they are drawn before
each call, from the same generators in the same order as the step as written would.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_map_only

from dqn.errors import UsageError


def trace(
    step: Callable,
    optimizer: torch.optim.Optimizer | None,
    *args: Tensor,
    rewrites: Mapping[Any, Callable] | None = None,
) -> tuple[fx.GraphModule, list[partial], list[Tensor]]:
    """The step as a graph of its inputs and then its arguments, the draws before each call, and the inputs. `rewrites`
    are operations that are written otherwise.

    Errors: ValueError where a part counts in Python: two recordings differ, and each call would repeat one of them.
    """
    draws: list[partial] = []
    first, (graph, real) = (_recorded(step, optimizer, {**(rewrites or {}), **_drawing(d)}, *args) for d in ([], draws))
    if not _same(*first, graph, real):
        raise ValueError("a part keeps what changes in Python: keep it in tensors, changed in place")
    return graph, draws, _open(graph, real)


def _recorded(
    step: Callable, optimizer: torch.optim.Optimizer | None, otherwise: dict[Any, Callable], *args: Tensor
) -> tuple[fx.GraphModule, dict[int, Tensor]]:
    """One tracing, and whose its stand-ins are, by id."""
    fake = FakeTensorMode(allow_non_fake_inputs=True)

    def plain(*args: Tensor) -> Any:  # a bound method's self would be counted as an argument
        return step(*args)

    with _recordable(optimizer), fake, StandIns(fake) as stand_ins:
        recording = make_fx(plain, decomposition_table=otherwise)
        return recording(*map(fake.from_tensor, args)), stand_ins.real


def _same(graph: fx.GraphModule, real: dict[int, Tensor], other: fx.GraphModule, others: dict[int, Tensor]) -> bool:
    """Whether two recordings do the same to the same tensors, with the same numbers of Python's own."""

    def tensors(graph: fx.GraphModule, real: dict[int, Tensor]) -> list[Tensor]:
        values = [getattr(graph, str(node.target)) for node in graph.graph.nodes if node.op == "get_attr"]
        return [real.get(id(x), x) for x in values if isinstance(x, Tensor)]

    def alike(x: Tensor, y: Tensor) -> bool:
        if isinstance(y, FakeTensor):  # the first tracing's: what was there before is lost
            raise UsageError(
                "A part replaces one of its tensors in a step that is traced: change it in place, as with copy_, or "
                "set execution=eager."
            )
        return x is y or torch.equal(x, y)

    return graph.code == other.code and all(map(alike, tensors(graph, real), tensors(other, others)))


class StandIns(TorchDispatchMode):
    """Gives every operation tensors without numbers for the real ones (`real`: whose they are, by id); or an operation
    that meets only real ones would be executed while it is traced."""

    def __init__(self, fake: FakeTensorMode):
        super().__init__()
        self.fake, self.real, self.kept = fake, {}, []

    def _stand_in(self, tensor: Tensor) -> Tensor:
        if isinstance(tensor, FakeTensor):
            return tensor
        for each in (tensor, tensor._base):  # the stand-in of a view is a view of the stand-in of its base
            if each is not None and id(stand_in := self.fake.from_tensor(each)) not in self.real:
                self.real[id(stand_in)] = each
                self.kept.append(stand_in)  # or another could get its id
        return self.fake.from_tensor(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map_only(Tensor, self._stand_in, (args, kwargs or {}))
        return func(*args, **kwargs)


def count_on_device(optimizer: torch.optim.Optimizer | None) -> None:
    """Make an optimizer's lr and its counts of steps tensors on its device, so that no number is read on the host."""
    if optimizer is None:
        return
    for group in optimizer.param_groups:
        device = group["params"][0].device
        group["lr"] = torch.as_tensor(group["lr"], device=device)
        if "capturable" in group:
            group["capturable"] = True
        if "foreach" in group and not group.get("fused"):  # else plain SGD reads its lr
            group["foreach"] = True
        for state in (optimizer.state[p] for p in group["params"]):
            if isinstance(state.get("step"), Tensor):
                state["step"] = state["step"].to(device)


@contextmanager
def in_tensors() -> Iterator[None]:
    """Let optimizers work in tensors alone, as torch.compile does: else some refuse to count in them on a CPU, and some
    read their lr."""
    asked = torch.compiler.is_compiling
    torch.compiler.is_compiling = lambda: True
    try:
        yield
    finally:
        torch.compiler.is_compiling = asked


@contextmanager
def _recordable(optimizer: torch.optim.Optimizer | None) -> Iterator[None]:
    """Let the optimizer work in tensors alone: its lr a tensor from now on, its steps counted on the device."""
    groups = optimizer.param_groups if optimizer is not None else []
    before = [dict(group) for group in groups]
    for group in groups:
        group.update({"fused": False} if "fused" in group else {})
    count_on_device(optimizer)
    try:
        with in_tensors():
            yield
        for group, old in zip(groups, before, strict=True):
            old["lr"] = group["lr"]
    finally:
        for group, old in zip(groups, before, strict=True):
            group.update(old)


def _drawing(draws: list[partial]) -> dict[Any, Callable]:
    """What draws random numbers gives a tensor instead, which a draw of `draws` fills before each call: as torch.rand,
    randn, randint and randperm do after a fresh tensor."""

    def drawing(whole: bool, fill: Callable) -> Callable:
        def draw(*args: Any, generator: Any, dtype: Any = None, device: Any = None, **options: Any) -> Tensor:
            *bounds, size = args  # of a permutation the size alone
            with _disable_current_modes():  # a tensor with numbers: it is no part of the tracing
                kind = dtype or (torch.int64 if whole else torch.get_default_dtype())
                buffer = torch.zeros(size, dtype=kind, device=device)  # alike in both recordings
            draws.append(partial(fill, buffer, *bounds, generator=generator))
            return buffer

        return draw

    aten = torch.ops.aten
    integers = drawing(True, lambda x, *bounds, generator: x.random_(*(0, *bounds)[-2:], generator=generator))
    return {
        aten.rand.generator: drawing(False, Tensor.uniform_),
        aten.randn.generator: drawing(False, Tensor.normal_),
        aten.randint.generator: integers,
        aten.randint.low_generator: integers,
        aten.randperm.generator: drawing(True, lambda x, generator: torch.randperm(len(x), generator=generator, out=x)),
    }


def _open(module: fx.GraphModule, real: dict[int, Tensor]) -> list[Tensor]:
    """Make inputs of all that the graph refers to; gives the inputs. Of tensors that share memory the largest is the
    input, and the others are views of it, or a compiler would not know that a change of one reaches the others.

    Errors: ValueError for a draw that is left.
    """
    graph, inputs, places = module.graph, [], {}
    found = [node for node in graph.nodes if node.op == "get_attr" and isinstance(getattr(module, node.target), Tensor)]
    tensors = {node: _real(getattr(module, node.target), real) for node in found}
    largest: dict[int, Tensor] = {}
    for tensor in tensors.values():
        storage = tensor.untyped_storage().data_ptr()
        if storage not in largest or tensor.numel() > largest[storage].numel():
            largest[storage] = tensor

    def place(tensor: Tensor) -> fx.Node:
        if id(tensor) not in places:
            with graph.inserting_before(next(iter(graph.nodes))):
                places[id(tensor)] = graph.placeholder(f"state_{len(inputs)}")
            inputs.insert(0, tensor.detach())
        return places[id(tensor)]

    for node, tensor in tensors.items():
        base = largest[tensor.untyped_storage().data_ptr()] if tensor.numel() else tensor
        if _is_piece(tensor, base):
            whole, offset = place(base), tensor.storage_offset() - base.storage_offset()
            with graph.inserting_before(node):
                view = graph.call_function(
                    torch.ops.aten.as_strided.default, (whole, [*tensor.shape], [*tensor.stride()], offset)
                )
                view.meta["val"] = node.meta.get("val")
            node.replace_all_uses_with(view)
        else:
            node.replace_all_uses_with(place(tensor))
    for node in reversed(list(graph.nodes)):
        if node.kwargs.get("generator") is not None:
            raise ValueError(f"{node.target} draws in a step: use torch.rand, randn, randint or randperm")
        if "profiler" in str(node.target) or (node.op == "get_attr" and not node.users):
            graph.erase_node(node)
    module.recompile()
    return inputs


def _real(value: Tensor, real: dict[int, Tensor]) -> Tensor:
    return real.get(id(value), value)


def _is_piece(tensor: Tensor, base: Tensor) -> bool:
    """Whether a tensor lies within another, which is one stretch of memory."""
    if tensor is base or tensor.dtype != base.dtype or not base.is_contiguous():
        return False
    first = tensor.storage_offset() - base.storage_offset()
    last = first + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    return first >= 0 and last < base.numel() and tensor.numel() < base.numel()
