"""What torch.compile cannot compile, or makes slow code of, written otherwise before it is compiled."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import OpOverload
from torch.utils._pytree import tree_leaves

from dqn.execution.inductor.images import OF_IMAGES

aten = torch.ops.aten
FEW = 8  # columns or terms: products with fewer cost a BLAS more to begin than to do
LOW, LARGE = 64, 1 << 19  # rows of one factor, numbers in the other: above and below, threads share a product well
HALVES = (2, 4, 8, 16)  # numbers in a row whose sum is made by halves
ROWS = 16  # numbers in a row that is read: for fewer, its place is worked out in passing


def _norms(tensors: list[Tensor], order: float = 2, dtype: torch.dtype | None = None) -> list[Tensor]:
    """One norm at a time: there is no kernel for all of them."""
    return [torch.linalg.vector_norm(tensor, order, dtype=dtype) for tensor in tensors]


def _powers(base: float, exponents: list[Tensor]) -> list[Tensor]:
    """β^t of an optimizer, one at a time."""
    return [torch.pow(base, t) for t in exponents]


def _quotients(tensors: list[Tensor], divisors: list[Tensor]) -> Any:
    """By a number each: as a product with its reciprocal, for a division takes longer."""
    if any(d.numel() > 1 for d in divisors):
        return NotImplemented
    aten._foreach_mul_.List(tensors, [torch.reciprocal(d) for d in divisors])


def _turned(a: Tensor, b: Tensor) -> bool:
    """Whether a·b of a few rows is (bᵀaᵀ)ᵀ sooner: a CPU's BLAS shares out rows among threads."""
    low = len(a) <= LOW and a.stride(1) == 1 and b.numel() >= LARGE
    return low and a.device.type == "cpu" and torch.get_num_threads() > 1


def _linear(bias: Tensor, x: Tensor, weight: Tensor, **factors: Any) -> Any:
    """x·w + b: few columns are sums."""
    if not factors and _turned(x, weight):
        return torch.mm(x, weight) + bias  # a product as below
    if factors or weight.shape[1] >= FEW or weight.stride(0) != 1:
        return NotImplemented
    return (x[:, None, :] * weight.t()).sum(-1) + bias


def _product(a: Tensor, b: Tensor) -> Any:
    """a·b: few terms are sums in what follows; a weight's gradient gᵀx is (xᵀg)ᵀ where there are fewer inputs than
    outputs, which takes a BLAS a third, and is then laid out as its weight."""
    if _turned(a, b):
        return torch.mm(b.t(), a.t()).t().contiguous()
    if a.shape[1] < FEW < b.shape[1] and b.stride(1) == 1:
        return (a[:, :, None] * b).sum(1)
    if a.stride(0) == 1 < a.stride(1) and b.stride(1) == 1 and b.shape[1] < a.shape[0]:
        return torch.mm(b.t(), a.t()).t().contiguous().as_strided((a.shape[0], b.shape[1]), (b.shape[1], 1))
    return NotImplemented


def _running_sums(x: Tensor, dim: int, **options: Any) -> Any:
    """Those of a few whole numbers are sums in what follows, and so are the places of others among a few."""
    if options or x.ndim != 1 or len(x) >= FEW or x.is_floating_point():
        return NotImplemented
    return (x * x.new_ones(len(x), len(x)).tril()).sum(1)


def _places(sorted_numbers: Tensor, x: Tensor, right: bool = False, **options: Any) -> Any:
    if options or sorted_numbers.ndim != 1 or len(sorted_numbers) >= FEW:
        return NotImplemented
    return (sorted_numbers <= x[..., None] if right else sorted_numbers < x[..., None]).sum(-1)


def _sums(x: Tensor, dim: Any, *keep: Any, **options: Any) -> Any:
    """Those of a few float64 numbers in a row, by halves: a compiler adds the parts of a register by way of memory."""
    n = x.shape[-1] if x.ndim and dim in ([-1], [x.ndim - 1]) else 0
    if keep or options or x.dtype != torch.float64 or x.device.type != "cpu" or n not in HALVES:
        return NotImplemented
    while n > 1:
        n //= 2
        x = x[..., :n] + x[..., n:]
    return x[..., 0]


REWRITES: dict[Any, Callable] = {
    **OF_IMAGES,
    aten._foreach_norm.Scalar: _norms, aten._foreach_pow.ScalarAndTensor: _powers,
    aten._foreach_div_.List: _quotients, aten.addmm.default: _linear,
    aten.mm.default: _product, aten.cumsum.default: _running_sums, aten.searchsorted.Tensor: _places,
    aten.sum.dim_IntList: _sums,
}  # fmt: skip


def add_late(graph: fx.Graph) -> None:
    """Where a ReLU follows x·w + b, it adds b in passing; as −(−b), for x·w + b would be put together again. What
    else follows might add it many times."""
    for node in list(graph.nodes):
        if node.target is not aten.addmm.default or node.kwargs or node.meta["val"].dtype != torch.float32:
            continue  # in bfloat16 the product would be rounded before b is added
        if {reader.target for reader in _readers(node)} == {aten.relu.default}:
            bias, x, weight = node.args
            with graph.inserting_before(node):
                product = graph.call_function(aten.mm.default, (x, weight))
                negated = graph.call_function(aten.neg.default, (bias,))
                node.replace_all_uses_with(graph.call_function(aten.sub.Tensor, (product, negated)))
            graph.erase_node(node)


def keep_small(graph: fx.Graph) -> None:
    """Keep in memory each number that larger tensors are made of (β^t, a clip's factor) and the places of rows that are
    read: else they are worked out anew for every few numbers of what is made of them."""
    for node in list(graph.nodes):
        if _makes(node) and node.meta["val"].numel() == 1 and node.meta["val"].is_floating_point():
            _keep(graph, node, [user for user in node.users if _enlarges(user, node)])
        elif (
            node.target is aten.index_select.default
            and node.meta["val"].numel() >= ROWS * node.args[2].meta["val"].numel()
        ):
            reader, places = node, node.args[2]
            while _views(places):
                reader, places = places, places.args[0]
            if _makes(places) and places.meta["val"].is_contiguous():
                _keep(graph, places, [reader])


def _keep(graph: fx.Graph, node: fx.Node, users: list[fx.Node]) -> None:
    """For these users, which are told that its storage is looked at, so that there must be one."""
    if not users:
        return
    value = node.meta["val"]
    with graph.inserting_after(node):
        kept = graph.call_function(aten.as_strided.default, (node, list(value.shape), list(value.stride())))
    for user in users:
        user.replace_input_with(node, kept)


def _makes(node: fx.Node) -> bool:
    """Whether a tensor is made there and nothing seen or changed."""
    made = isinstance(node.target, OpOverload) and not any(a.alias_info for a in node.target._schema.arguments)
    return made and isinstance(node.meta.get("val"), Tensor)


def _views(node: fx.Node) -> bool:
    """Whether a tensor is seen there and nothing changed."""
    arguments = node.target._schema.arguments if isinstance(node.target, OpOverload) else []
    return any(a.alias_info for a in arguments) and not any(a.alias_info and a.alias_info.is_write for a in arguments)


def _readers(node: fx.Node) -> Iterator[fx.Node]:
    """Who reads a tensor or what is seen of it."""
    for user in node.users:
        yield from _readers(user) if _views(user) else [user]


def _enlarges(user: fx.Node, number: fx.Node) -> bool:
    """Whether a larger tensor is made, or changed, by a number that stays as it is."""
    if not isinstance(user.target, OpOverload):
        return False
    arguments = user.target._schema.arguments
    read = [x for x, a in zip(user.args, arguments, strict=False) if a.alias_info is None or not a.alias_info.is_write]
    made = user.meta.get("val")  # nothing, where lists are changed in place
    return number in tree_leaves(read) and (not isinstance(made, Tensor) or made.numel() > 1)
