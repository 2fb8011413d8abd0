"""A GPU that is pretended: numbers lie on the CPU, the rules are CUDA's. So what runs on a GPU can be run without one.

1. Tensors of the host and of the device do not meet in an operation (single numbers of the host may, outside a
   capture), nor do their generators.
2. Where the host reads the device it waits, and where it writes there from its own memory: an error under
   set_sync_debug_mode("error") and while a graph is captured.
3. A captured graph repeats operations on the same memory and nothing else: what lay on the host, or in Python, is
   frozen; what is made in it is rubbish until it is replayed; its generators must be registered.

What is fast there, and what Triton makes of a graph, only a GPU tells.
"""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch.optim.optimizer import _foreach_supported_types
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
MODES = {"default": 0, "warn": 1, "error": 2}
CUDA = torch.device("cuda", 0)
WAITS = {  # the sizes of their results are numbers on the device
    aten.nonzero.default, aten.masked_select.default, aten._unique2.default, aten.repeat_interleave.Tensor,
    aten.equal.default, aten.is_nonzero.default,
}  # fmt: skip
INDEXING = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default}
GENERATOR, GROUPED = torch.Generator, torch._C._group_tensors_by_device_and_dtype


class State:
    """What the pretended GPU is doing."""

    debug = 0  # set_sync_debug_mode
    placing = False  # what is made now is made on the device
    capture: "Graph | None" = None
    lost: frozenset[int] = frozenset()  # generators of a capture that was broken off: they never learn that it is over


def wait(what: str) -> None:
    """The host waits for the device here."""
    if State.capture is not None:
        State.lost |= State.capture.seeds
        raise RuntimeError(f"operation not permitted when stream is capturing: {what}")
    if State.debug == 2:
        raise RuntimeError(f"called a synchronizing CUDA operation: {what}")
    if State.debug == 1:
        warnings.warn(f"called a synchronizing CUDA operation: {what}", stacklevel=2)


class OnDevice(torch.Tensor):
    """A tensor on the pretended device; `its` numbers are on the CPU, where autograd believes it to be."""

    its: torch.Tensor
    device = property(lambda self: CUDA)  # pyright: ignore[reportAssignmentType]
    is_cuda = property(lambda self: True)  # pyright: ignore[reportAssignmentType]

    @staticmethod
    def __new__(cls, its: torch.Tensor) -> "OnDevice":
        size, strides, offset = its.size(), its.stride(), its.storage_offset()
        self = torch.Tensor._make_wrapper_subclass(
            cls, size, strides=strides, storage_offset=offset, dtype=its.dtype, layout=its.layout, device="cpu"
        )
        self.its = its
        return self

    def __repr__(self, **_: Any) -> str:
        return f"OnDevice({self.its})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return operate(func, args, dict(kwargs or {}))

    def to(self, *given: Any, **options: Any) -> torch.Tensor:
        dtype, device = options.get("dtype") or self.dtype, options.get("device") or CUDA
        for x in given:
            if isinstance(x, torch.Tensor):
                dtype, device = x.dtype, x.device
            elif isinstance(x, torch.dtype):
                dtype = x
            elif isinstance(x, (str, torch.device)):
                device = x
        rest = {k: v for k, v in options.items() if k in ("copy", "memory_format")}
        if on_cuda(device):
            return super().to(dtype, **rest)
        if torch.device(device).type == "meta":
            return torch.empty_like(self.its, device=device, dtype=dtype)
        wait("a copy to the host")
        return self.its.detach().clone().to(dtype)

    def cpu(self, **_: Any) -> torch.Tensor:
        return self.to("cpu")

    def tolist(self) -> Any:
        return self.to("cpu").tolist()

    def numpy(self, *, force: bool = False) -> Any:
        if not force:
            raise TypeError("can't convert cuda:0 device type tensor to numpy.")
        return self.to("cpu").numpy()


def on_cuda(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def bare(x: Any) -> Any:
    return x.its if isinstance(x, OnDevice) else x


def placed(x: Any) -> Any:
    return OnDevice(x) if isinstance(x, torch.Tensor) and not isinstance(x, OnDevice) else x


def upload(x: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
    """From the host's pageable memory."""
    wait("a copy from pageable memory")
    with _disable_current_modes():
        return OnDevice(x.detach().clone().to(dtype or x.dtype))


def changed(func: Any, args: Any, kwargs: Any) -> list[Any]:
    """What an operation writes to."""
    episode_info = enumerate(func._schema.arguments)
    return [
        args[i] if i < len(args) else kwargs.get(a.name)
        for i, a in episode_info
        if a.alias_info and a.alias_info.is_write
    ]


def fresh(func: Any, out: Any) -> list[torch.Tensor]:
    """What an operation makes."""
    episode_info = func._schema.returns
    parts = [
        x for x, a in zip([out] if len(episode_info) == 1 else out or [], episode_info, strict=True) if not a.alias_info
    ]
    return [x for x in tree_leaves(parts) if isinstance(x, torch.Tensor)]


def check(func: Any, args: Any, kwargs: Any) -> None:
    """Rules 1 and 2."""
    if func in WAITS:
        wait(str(func))
    if func in INDEXING:
        for index in filter(lambda x: isinstance(x, torch.Tensor), args[1]):
            if index.dtype in (torch.bool, torch.uint8) or not isinstance(index, OnDevice):
                wait(f"{func} with a mask, or a place on the host")
        return
    host = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor) and not isinstance(x, OnDevice)]
    for x in host:
        if x.dim() or (State.capture is not None and not hasattr(x, "anywhere")):
            raise RuntimeError(f"Expected all tensors to be on the same device: {func} was given {x} of the host")


def operate(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """One operation of the device's."""
    if func is aten._local_scalar_dense.default:
        wait("a number is read")
        return func(args[0].its)
    if func is aten.copy_.default and not all(isinstance(x, OnDevice) for x in args[:2]):
        if isinstance(args[0], OnDevice):
            args = (args[0], upload(args[1]), *args[2:])
        else:
            wait("a copy to the host")
            return func(args[0], args[1].its, *args[2:])
    if func is aten._foreach_copy_.default:  # of two devices: one at a time
        for mine, theirs in zip(*args[:2], strict=True):
            operate(aten.copy_.default, (mine, theirs), {})
        return None
    check(func, args, kwargs)
    kwargs = {k: v for k, v in kwargs.items() if k != "device"}
    out = perform(func, tree_map(bare, args), tree_map(bare, kwargs))
    written = changed(func, args, kwargs)
    if written:
        whole = written[0] if len(written) == 1 else tuple(written)
        return whole if func._schema.returns else None
    out = tree_map(placed, out)
    views = any(r.alias_info for r in func._schema.returns)
    return return_and_correct_aliasing(func, args, kwargs, out) if views else out


def perform(func: Any, args: Any, kwargs: Any) -> Any:
    """Run it; while a graph is captured also note it."""
    generator = kwargs.get("generator")
    if generator is not None and State.capture is None and generator.initial_seed() in State.lost:
        raise RuntimeError("Offset increment outside graph capture encountered unexpectedly.")
    return func(*args, **kwargs) if State.capture is None else State.capture.note(func, args, kwargs)


class Graph:
    """torch.cuda.CUDAGraph."""

    def __init__(self) -> None:
        self.notes: list[tuple[Any, Any, Any, Any]] = []
        self.seeds: set[int] = set()
        self.before: dict[int, tuple[Any, Any]] = {}
        self.made: dict[int, torch.Tensor] = {}
        self.drawn: list[tuple[torch.Generator, torch.Tensor]] = []

    def register_generator_state(self, generator: torch.Generator) -> None:
        self.seeds.add(generator.initial_seed())

    def note(self, func: Any, args: Any, kwargs: Any) -> Any:
        generator, written = kwargs.get("generator"), changed(func, args, kwargs)
        if generator is not None:
            if generator.initial_seed() not in self.seeds:
                raise RuntimeError(f"{func} draws from a generator that is not registered")
            self.drawn.append((generator, generator.get_state()))
        for storage in (x.untyped_storage() for x in tree_leaves(written) if isinstance(x, torch.Tensor)):
            if storage.data_ptr() not in self.before and storage.data_ptr() not in self.made:
                self.before[storage.data_ptr()] = storage, storage.clone()
        out = func(*args, **kwargs)
        made = fresh(func, out)
        self.made |= {x.untyped_storage().data_ptr(): x for x in made}
        if made or written:
            self.notes.append((func, args, kwargs, made))
        return out

    def end(self) -> None:
        """Nothing has been done; what was made is rubbish."""
        for storage, numbers in self.before.values():
            storage.copy_(numbers)
        for generator, state in reversed(self.drawn):
            generator.set_state(state)
        for x in self.made.values():
            x.fill_(float("nan") if x.is_floating_point() else 1)

    def replay(self) -> None:
        with _disable_current_modes():
            for func, args, kwargs, made in self.notes:
                for x, y in zip(made, fresh(func, func(*args, **kwargs)), strict=True):
                    x.copy_(y)


class Generator(GENERATOR):
    """torch.Generator; the device's draws are the host's."""

    def __new__(cls, device: Any = "cpu") -> Any:
        self = super().__new__(cls)
        self.on_device = on_cuda(device)
        return self


class Functions(TorchFunctionMode):
    """What is called by its name in Python: where things are made, and with which generator."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, mine = dict(kwargs or {}), any(isinstance(x, OnDevice) for x in tree_leaves((args, kwargs)))
        device, generator = kwargs.get("device"), kwargs.get("generator")
        if func is torch.Tensor.to and not isinstance(args[0], OnDevice):
            place = [*[x for x in args[1:] if isinstance(x, (str, torch.device))], device]
            if on_cuda(place[0]):
                dtypes = [x for x in args[1:] if isinstance(x, torch.dtype)]
                return upload(args[0], kwargs.get("dtype") or next(iter(dtypes), None))
        if func is F.one_hot and mine:  # reads numbers on the CPU alone
            shape = (*args[0].shape, args[1])
            with self:
                return torch.zeros(shape, dtype=torch.int64, device=CUDA).scatter_(-1, args[0].unsqueeze(-1), 1)
        if func in (torch.as_tensor, torch.tensor) and on_cuda(device):
            if mine:
                return args[0].to(kwargs.get("dtype") or args[0].dtype)
            with _disable_current_modes():
                x = func(*args, **{k: v for k, v in kwargs.items() if k != "device"})
            return upload(x)
        numbered = func is torch.Tensor.__setitem__ and mine and not isinstance(args[2], torch.Tensor)
        if numbered and any(isinstance(x, torch.Tensor) for x in tree_leaves(args[1])):
            wait("a number of the host is written at places of the device")
        if generator is not None and getattr(generator, "on_device", False) != (mine or on_cuda(device)):
            raise RuntimeError(f"{func} was given a generator of another device")
        if not on_cuda(device):
            return func(*args, **kwargs)
        before, State.placing = State.placing, True
        try:
            return func(*args, **{**kwargs, "device": "cpu"})
        finally:
            State.placing = before


class Operations(TorchDispatchMode):
    """What is called by whatever it is called by."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        if (State.placing and not tensors) or any(isinstance(x, OnDevice) for x in tensors):
            return operate(func, args, dict(kwargs or {}))
        out = func(*args, **(kwargs or {}))
        if func is aten.scalar_tensor.default:  # by torch itself, for an operation that it believes to be the host's
            out.anywhere = True
        return out


class Stream:
    """torch.cuda.Stream: everything is done in order."""

    def __init__(self, *_: Any) -> None: ...

    def wait_stream(self, other: "Stream") -> None: ...

    def is_capturing(self) -> bool:
        return State.capture is not None


@contextmanager
def graph(made: Graph, **_: Any) -> Iterator[None]:
    """torch.cuda.graph."""
    State.capture = made
    try:
        yield
    finally:
        State.capture = None
        made.end()


def group(lists: Any, *given: Any) -> Any:
    """As torch does, with the device that it cannot see."""
    where = CUDA if any(isinstance(x, OnDevice) for x in tree_leaves(lists)) else None
    return {(where or device, dtype): found for (device, dtype), found in GROUPED(lists, *given).items()}


@contextmanager
def gpu(patch: Any) -> Iterator[None]:
    """A GPU is there, by a pytest.MonkeyPatch."""
    cuda: dict[str, Any] = {
        "is_available": lambda: True, "device_count": lambda: 1, "_lazy_init": lambda: None,
        "get_device_name": lambda *_: "a pretended GPU", "mem_get_info": lambda *_: (80 << 30, 80 << 30),
        "Stream": Stream, "CUDAGraph": Graph, "graph": graph, "current_stream": Stream,
        "is_current_stream_capturing": Stream().is_capturing, "stream": lambda _: nullcontext(),
        "synchronize": lambda *_: None,
        "set_sync_debug_mode": lambda mode: setattr(State, "debug", MODES.get(mode, mode)),
        "get_sync_debug_mode": lambda: State.debug,
    }  # fmt: skip
    for name, stands_in in cuda.items():
        patch.setattr(torch.cuda, name, stands_in)
    accelerator: dict[str, Any] = {"current_accelerator": lambda *_, **__: CUDA, "current_stream": Stream}
    for name, stands_in in accelerator.items():
        patch.setattr(torch.accelerator, name, stands_in)
    patch.setattr(torch, "Generator", Generator)
    patch.setattr(torch._C, "_group_tensors_by_device_and_dtype", group)
    patch.setattr(
        sys.modules[torch.optim.Optimizer.__module__], "_foreach_supported_types", [*_foreach_supported_types, OnDevice]
    )
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        with Operations(), Functions():
            yield
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
        State.debug, State.placing, State.capture, State.lost = 0, False, None, frozenset()
