"""The whole step as one compiled program.

A step is recorded as it is: run once on tensors without numbers, while every operation below autograd is written
down, so that sampling, both networks, the backward pass, clipping and the optimizer lie in one graph. Nothing is changed
by that. The tensors which the step reads and writes become the graph's inputs, and so do its random numbers: they are
drawn before each call, from the same generators in the same order as the step as written would.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

OPTIONS = {  # of torch._inductor; what is asserted here holds by construction, and a call is mostly such overhead
    "size_asserts": False, "nan_asserts": False, "alignment_asserts": False,
}  # fmt: skip


def compiler_missing() -> str:
    """Why nothing can be compiled for the CPU here, or nothing."""
    return "" if any(map(shutil.which, ("g++", "clang++", "c++"))) else "no C++ compiler"


def record(step: Callable, optimizer: torch.optim.Optimizer | None, *args: Tensor) -> Callable:
    """The step compiled for arguments like these; `optimizer` is the one in it. What else the step reads or writes are
    from now on exactly the tensors that it refers to now."""
    with _recordable(optimizer), FakeTensorMode(allow_non_fake_inputs=True) as mode:
        recording = make_fx(lambda *args: step(*args), decomposition_table={torch.ops.aten._foreach_norm.Scalar: _norms})
        graph = recording(*map(mode.from_tensor, args))
    draws, inputs = _open(graph)
    program = compile_graph(graph, inputs)

    def call(*args: Tensor) -> Any:
        for draw in draws:
            draw()
        with torch.no_grad():
            return program(*inputs, *args)

    def first(*args: Tensor) -> Any:  # the compiler starts here, before anything runs: where it fails, the draws are taken back
        generators = {draw.keywords["generator"] for draw in draws}
        before = [(generator, generator.get_state()) for generator in generators]
        try:
            return call(*args)
        except Exception:
            for generator, state in before:
                generator.set_state(state)
            raise

    return Twice(first, call)


class Twice:
    """`first` at the first call, `then` at all others."""

    def __init__(self, first: Callable, then: Callable):
        self.next, self.then = first, then

    def __call__(self, *args: Tensor) -> Any:
        result = self.next(*args)
        self.next = self.then
        return result


def compile_graph(graph: fx.GraphModule, inputs: list[Tensor]) -> Callable:
    """torch.compile without the checks for what cannot change between two calls."""
    from torch._inductor import config

    options: dict[str, Any] = {k: v for k, v in OPTIONS.items() if hasattr(config, k)}
    options["cpp_wrapper"] = all(x.device.type == "cpu" for x in inputs)  # on a GPU the captured graph spares it
    if hasattr(torch.compiler, "skip_all_guards_unsafe"):
        options["guard_filter_fn"] = torch.compiler.skip_all_guards_unsafe
    return torch.compile(graph.forward, fullgraph=True, dynamic=False, options=options)


@contextmanager
def _recordable(optimizer: torch.optim.Optimizer | None) -> Iterator[None]:
    """Let the optimizer work in tensors alone: its lr a tensor from now on, its steps counted on the device."""
    groups = optimizer.param_groups if optimizer is not None else []
    before, asked = [dict(group) for group in groups], torch.compiler.is_compiling
    wanted = {"capturable": True, "foreach": True, "fused": False}
    for group in groups:
        group["lr"] = torch.as_tensor(group["lr"], device=group["params"][0].device)
        group.update({k: v for k, v in wanted.items() if k in group})
    torch.compiler.is_compiling = lambda: True  # else optimizers refuse to count in tensors on a CPU
    lr = None
    try:
        yield
        lr = [group["lr"] for group in groups]
    finally:
        torch.compiler.is_compiling = asked
        for i, (group, old) in enumerate(zip(groups, before, strict=True)):
            group.update(old)
            if lr is not None:
                group["lr"] = lr[i]


def _norms(tensors: list[Tensor], order: float = 2, dtype: torch.dtype | None = None) -> list[Tensor]:
    """One norm at a time: torch.compile has no kernel for all of them."""
    return [torch.linalg.vector_norm(tensor, order, dtype=dtype) for tensor in tensors]


def _open(module: fx.GraphModule) -> tuple[list[Callable], list[Tensor]]:
    """Make inputs of all that the graph refers to; gives the draws to be made before each call, and the inputs."""
    graph, draws, inputs, places = module.graph, [], [], {}

    def place(node: fx.Node, tensor: Tensor) -> None:
        if id(tensor) not in places:
            with graph.inserting_before(next(iter(graph.nodes))):
                places[id(tensor)] = graph.placeholder(f"state_{len(inputs)}")
            inputs.insert(0, tensor)
        node.replace_all_uses_with(places[id(tensor)])

    for node in list(graph.nodes):
        if node.op == "get_attr" and isinstance(value := getattr(module, node.target), Tensor):
            place(node, value.detach() if value.requires_grad else value)
        elif isinstance(generator := node.kwargs.get("generator"), fx.Node):
            like = node.meta["val"]
            buffer = torch.empty(like.shape, dtype=like.dtype, device=like.device)
            source = getattr(module, str(generator.target))
            into = getattr(node.target.overloadpacket, f"{node.target._overloadname}_out")
            draws.append(partial(into, *node.args, generator=source, out=buffer))
            place(node, buffer)
    for node in reversed(list(graph.nodes)):
        unused = node.op in ("get_attr", "call_function") and not node.users
        if "profiler" in str(node.target) or (unused and (node.op == "get_attr" or "generator" in node.kwargs)):
            graph.erase_node(node)
    module.recompile()
    return draws, inputs
