"""A small step in NumPy: where arrays are tiny, torch's own overhead is most of the time.

The traced graph (execution.inductor.tracing) is written out as a Python function of NumPy calls on the same memory.
What is known before the call, such as a transposed weight, is a view that is made once.
"""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from dqn.execution.inductor.tracing import trace

ZEROS = {np.dtype(kind): np.zeros((), kind) for kind in (np.float32, np.float64, np.int64)}
LARGEST = 1 << 16  # numbers in a result: above, torch is as fast
DTYPES = {torch.float32: np.float32, torch.float64: np.float64, torch.int64: np.int64, torch.bool: np.bool_}


def _linear(bias: Any, x: Any, weight: Any) -> Any:
    return np.add(x.dot(weight), bias)  # sooner than a matmul, or an addition in place


def _layer_norm(x: Any, shape: Any, weight: Any, bias: Any, eps: float) -> tuple[Any, ...]:
    axes = tuple(range(-len(shape), 0))
    centred = x - x.mean(axes, keepdims=True)
    scale = 1 / np.sqrt(np.square(centred).mean(axes, keepdims=True) + x.dtype.type(eps))
    return centred * scale * weight + bias, None, None


def _softmax(x: Any, dim: int, half: bool) -> Any:
    shifted = np.exp(x - x.max(dim, keepdims=True))
    return shifted / shifted.sum(dim, keepdims=True)


def _log_softmax(x: Any, dim: int, half: bool) -> Any:
    shifted = x - x.max(dim, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(dim, keepdims=True))


def _clamp(x: Any, low: float, high: float) -> Any:
    return np.minimum(np.maximum(x, x.dtype.type(low)), x.dtype.type(high))  # a fifth of np.clip's time


def _axes(dim: Any) -> Any:
    return tuple(dim) if isinstance(dim, (list, tuple)) else dim


def _slice(x: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Any:
    return x[(slice(None),) * (dim % x.ndim) + (slice(start, end, step),)]


def _expand(x: Any, shape: list[int]) -> Any:
    own = (*[1] * (len(shape) - x.ndim), *x.shape)
    return np.broadcast_to(x, [o if n == -1 else n for n, o in zip(shape, own, strict=True)])


VIEWS: dict[str, Callable] = {  # these share the memory of what they are given
    "t.default": lambda x: x.T,
    "detach.default": np.asarray,
    "view.default": lambda x, shape: x.reshape(shape),
    "_unsafe_view.default": lambda x, shape: x.reshape(shape),
    "unsqueeze.default": np.expand_dims,
    "transpose.int": np.swapaxes,
    "squeeze.dim": np.squeeze,
    "slice.Tensor": _slice,
    "expand.default": _expand,
    "split_with_sizes.default": lambda x, sizes, dim=0: np.split(x, np.cumsum(sizes)[:-1], dim),
}
RESHAPES = ("view.default", "_unsafe_view.default", "unsqueeze.default", "squeeze.dim")
KNOWN: dict[str, Callable] = VIEWS | {
    "addmm.default": _linear,
    "mm.default": np.dot,
    "clamp.default": _clamp,
    "relu.default": lambda x: np.maximum(x, ZEROS[x.dtype]),
    "exp.default": np.exp,
    "cos.default": np.cos,
    "abs.default": np.abs,
    "sqrt.default": np.sqrt,
    "sign.default": np.sign,
    "neg.default": np.negative,
    "cumsum.default": np.cumsum,
    "native_layer_norm.default": _layer_norm,
    "_softmax.default": _softmax,
    "_log_softmax.default": _log_softmax,
    "add.Tensor": np.add,
    "sub.Tensor": np.subtract,
    "mul.Tensor": np.multiply,
    "div.Tensor": np.divide,
    "lt.Tensor": np.less,
    "where.self": np.where,
    "embedding.default": lambda weight, index: weight[index],
    "cat.default": lambda parts, dim=0: np.concatenate(parts, dim),
    "argmax.default": lambda x, dim=None, keep=False: x.argmax(dim, keepdims=keep),
    "sum.dim_IntList": lambda x, dim, keep=False: x.sum(_axes(dim), keepdims=keep),
    "mean.dim": lambda x, dim, keep=False: x.mean(_axes(dim), keepdims=keep),
}


def _name(node: fx.Node) -> str:
    return str(node.target).removeprefix("aten.")


def unfit(graph: fx.Graph) -> str:
    """What keeps a graph from being run in NumPy, or nothing."""
    for node in graph.nodes:
        if node.op != "call_function" or node.target is operator.getitem:
            continue
        name = _name(node)
        values = node.meta["val"] if isinstance(node.meta["val"], (list, tuple)) else [node.meta["val"]]
        if name not in KNOWN or node.kwargs:
            return f"no {name} in NumPy"
        if name not in VIEWS and any(x is not None and (x.numel() > LARGEST or x.dtype not in DTYPES) for x in values):
            return f"{name} is large"
    return ""


def _straighten(graph: fx.Graph) -> None:
    """A reshape of a reshape is one, and none where the shape stays."""

    def reshapes(node: Any) -> bool:
        return node.op == "call_function" and _name(node) in RESHAPES

    for node in filter(reshapes, graph.nodes):
        source = node.args[0]
        while reshapes(source):
            source = source.args[0]
        shapes = [list(x.meta["val"].shape) for x in (source, node)]
        node.target, node.args = torch.ops.aten.view.default, (source, shapes[1])
        if shapes[0] == shapes[1]:
            node.replace_all_uses_with(source)
    graph.eliminate_dead_code()


def record_small(step: Callable, *args: Any) -> Callable:
    """The step in NumPy for arguments like these, arrays or tensors; it gives arrays. Errors: ValueError, as
    `in_numpy`."""
    graph, draws, inputs = trace(step, None, *map(torch.as_tensor, args))
    run = in_numpy(graph, inputs)

    def call(*args: Any) -> tuple[Any, ...]:
        for draw in draws:
            draw()
        return run(*args)

    return call


def in_numpy(module: fx.GraphModule, inputs: list[Tensor]) -> Callable:
    """The graph as a function of NumPy arrays. Errors: ValueError for what NumPy does not do here."""
    if reason := unfit(module.graph):
        raise ValueError(reason)
    _straighten(module.graph)
    places = [node for node in module.graph.nodes if node.op == "placeholder"]
    known: dict[str, Any] = {node.name: x.numpy() for node, x in zip(places, inputs, strict=False)}
    lines, names = [], {}
    for node in module.graph.nodes:
        if node.op != "call_function":
            continue
        function = operator.getitem if node.target is operator.getitem else KNOWN[_name(node)]
        if function is _linear and (bias := node.args[0]).name in known and len(bias.users) == 1:
            known[bias.name] = np.atleast_2d(known[bias.name])  # as what it is added to where one acts: twice as fast
        if _name(node) in VIEWS and all(arg.name in known for arg in node.all_input_nodes):
            args = [known[arg.name] if isinstance(arg, fx.Node) else arg for arg in node.args]
            known[node.name] = function(*args)
        else:
            names[f"do_{node.name}"] = function
            lines.append(f"    {node.name} = do_{node.name}({', '.join(map(repr, node.args))})")
    result = next(node for node in module.graph.nodes if node.op == "output").args[0]
    given = ", ".join(node.name for node in places[len(inputs) :])
    source = f"def step({given}):\n" + "\n".join(lines) + f"\n    return {result!r}\n"
    scope = names | known
    exec(source, scope)  # the names are those of the tracing
    return scope["step"]
