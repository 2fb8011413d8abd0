"""The whole step as one program: traced as it is (execution.inductor.tracing), fused by torch.compile's compiler."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._pytree import tree_flatten, tree_unflatten

from dqn.execution.inductor.rewrites import REWRITES, add_late, keep_small
from dqn.execution.inductor.tracing import trace
from dqn.execution.measure import is_cached, note_program, program_key

OPTIONS = {  # of torch._inductor
    # What is asserted holds by construction, and a call is mostly such overhead.
    "size_asserts": False,
    "nan_asserts": False,
    "alignment_asserts": False,
    "fallback_random": True,  # draws from torch's own stream, such as dropout's, are those of the step as written
    # The C++ compiler is most of what a cold start costs. Its header, compiled before, takes 10 s and spares 4 of each
    # program: a run has one. A program of its own that only tries the vector instructions takes 3 s. Lines and frame
    # pointers are for debuggers.
    "cpp_cache_precompile_headers": False,
    "cpp.vec_isa_ok": True,
    "aot_inductor.enable_line_tables": False,
    "aot_inductor.enable_frame_pointer": False,
}


def compiler_missing() -> str:
    """Why nothing can be compiled for the CPU here, or nothing."""
    return "" if any(map(shutil.which, ("g++", "clang++", "c++"))) else "no C++ compiler"


def record(step: Callable, optimizer: torch.optim.Optimizer | None, *args: Tensor) -> Callable:
    """The step compiled for arguments like these; `optimizer` is the one in it. What else the step reads or writes are
    from now on exactly the tensors that it refers to now."""
    graph, draws, inputs = _traced(step, optimizer, *args)
    key = program_key(graph, [*inputs, *args])
    run = compile_graph(graph, [*inputs, *args])
    note_program(key)
    return Program(run, draws, inputs)


def cached(step: Callable, optimizer: torch.optim.Optimizer | None, *args: Tensor) -> bool:
    """Whether the step for arguments like these has been compiled on this machine before."""
    graph, _, inputs = _traced(step, optimizer, *args)
    return is_cached(program_key(graph, [*inputs, *args]))


def _traced(
    step: Callable, optimizer: torch.optim.Optimizer | None, *args: Tensor
) -> tuple[fx.GraphModule, list[partial], list[Tensor]]:
    graph, draws, inputs = trace(step, optimizer, *args, rewrites=REWRITES)
    add_late(graph.graph)
    keep_small(graph.graph)
    graph.recompile()
    return graph, draws, inputs


class Program:
    """A compiled graph, with the draws to be made before each call and the tensors that it reads and writes."""

    def __init__(self, run: Callable, draws: list[partial], inputs: list[Tensor]):
        self.run, self.draws, self.inputs = run, draws, inputs

    def __call__(self, *args: Tensor) -> Any:
        for draw in self.draws:
            draw()
        return self.run([*self.inputs, *args])  # none of them has gradients


def compile_graph(graph: fx.GraphModule, inputs: list[Tensor]) -> Callable:
    """torch.compile's compiler alone: the graph needs none of its tracing, nor what it does before and after each call
    for callers that have gradients or views of the tensors."""
    from torch._inductor import compile, config

    options: dict[str, Any] = {name: value for name, value in OPTIONS.items() if _has(config, name)}
    for option in ("cpp_wrapper", "memory_planning"):  # on a GPU the captured graph spares what they do
        options[option] = all(x.device.type == "cpu" for x in inputs)
    if torch.__version__ < "2.7":  # its cache of programs fails where it finds one
        options["fx_graph_cache"] = False
    output = next(node for node in graph.graph.nodes if node.op == "output")
    outputs, structure = tree_flatten(output.args[0])
    output.args = (outputs,)
    for node in graph.graph.nodes:
        if node.op == "placeholder":  # some know the tensor they were traced with: those would be taken for all
            node.meta.pop("val", None)
    alone = fx.GraphModule({}, graph.graph)  # without the tensors it was traced with, which would be inputs too
    shape = fx.Graph()
    shape.output(tree_unflatten([shape.placeholder(f"output_{i}") for i in range(len(outputs))], structure))
    fake = FakeTensorMode(shape_env=ShapeEnv())  # its caches ask for one
    sized: list[Any] = [fake.from_tensor(x, static_shapes=True) for x in inputs]  # or every size would be a variable
    with tracing(TracingContext(fake)), _made() as programs:
        compile(alone, sized, options=options)
    (program,), result = programs, fx.GraphModule({}, shape).forward  # the program gives a list
    run = _bare(program.current_callable)
    return lambda inputs: result(*run(inputs))


def _has(config: Any, name: str) -> bool:
    """Whether this version of torch has an option."""
    for word in name.split("."):
        if not hasattr(config, word):
            return False
        config = getattr(config, word)
    return True


def _bare(program: Callable) -> Callable:
    """A program in C++ without its wrapper in Python, which asks of every argument whether it is a tensor."""
    entry = getattr(program, "__globals__", {}).get("inductor_entry")
    if entry is None:
        return program
    from torch._C import _aoti  # type: ignore[attr-defined]

    give, take = _aoti.unsafe_alloc_void_ptrs_from_tensors, _aoti.alloc_tensors_by_stealing_from_void_ptrs
    return lambda inputs: take(entry(give(inputs)))


@contextmanager
def _made() -> Iterator[list[Any]]:
    """The programs that are compiled, or found compiled, meanwhile."""
    from torch._inductor.output_code import CompiledFxGraph

    programs, usual = [], CompiledFxGraph.post_compile

    def noted(self: Any, *args: Any, **kwargs: Any) -> None:
        usual(self, *args, **kwargs)
        programs.append(self)

    CompiledFxGraph.post_compile = noted
    try:
        yield programs
    finally:
        CompiledFxGraph.post_compile = usual
