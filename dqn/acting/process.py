"""A process of its own that acts: rows and weights lie in memory that both processes see (acting.fixed_lag)."""

import atexit
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, multiprocessing

from dqn.acting.channel import Channel, Numbers, make_channel
from dqn.acting.fixed_lag import Played
from dqn.acting.weight_vector import flat, numbers_of, views
from dqn.errors import RunError, UsageError
from dqn.processes import end_with_parent, ignore_signals
from dqn.state import pack, unpack
from dqn.types import Rows

NO_BUFFER = -1
GONE = (EOFError, BrokenPipeError, ConnectionResetError)
PATIENCE = 5.0  # seconds for the other process to end by itself


class ProcessTransport:
    """Starts the process, and asks it to play.

    There are two stages for rows and two buffers for weights. While the other process fills one stage, this one stores
    the rows of the other stage; while it may still copy one buffer, this one writes into the other buffer.
    `make_stage(zeros)` makes a stage in the memory that `zeros` gives, `make_collector()` the collector over there.
    Errors: RunError where the other process died, and the UsageError or RunError that was raised there.
    """

    def __init__(self, make_collector: Callable[[], Any], make_stage: Callable[..., Any], online: Any):
        self.online = numbers_of(online)
        self.weight_buffers = [flat(self.online).cpu().share_memory_() for _ in range(2)]
        self.buffer_views = [views(buffer, self.online) for buffer in self.weight_buffers]
        self.free_buffer = 0  # the one that this process may write into
        shared: list[Tensor] = []

        def zeros(shape: Sequence[int], dtype: Any) -> np.ndarray:
            shared.append(torch.from_numpy(np.zeros(shape, dtype)).share_memory_())
            return shared[-1].numpy()

        self.stages = [make_stage(zeros=zeros), make_stage(zeros=zeros)]
        self.active_block = 0  # the stage that was filled last, or is being filled
        context = multiprocessing.get_context("spawn")  # a forked child of a process with torch's threads may hang
        self.channel, theirs = make_channel(context)
        given = (theirs, make_collector, make_stage, self.weight_buffers, shared)
        self.process = context.Process(target=serve, args=given, daemon=True)
        with ignore_signals():  # the child inherits what is ignored: Ctrl-C is for the run, not for the process
            self.process.start()
        theirs.pipe.close()
        atexit.register(self._tell_to_end)  # else an interpreter that ends without `close` waits for it for ever

    def write_weights(self) -> None:
        with torch.no_grad():
            torch._foreach_copy_(self.buffer_views[self.free_buffer], self.online)  # pyright: ignore[reportPrivateImportUsage]  # torch's types hide _foreach_*

    def play(self, now: int, until: int, take_weights: bool) -> None:
        self.active_block = 1 - self.active_block
        buffer = NO_BUFFER
        if take_weights:
            buffer, self.free_buffer = self.free_buffer, 1 - self.free_buffer
        self.channel.send(now, until, self.active_block, buffer)

    def receive(self) -> Played:
        return Played(*self._answer())

    def _answer(self) -> Any:
        try:
            numbers, thing = self.channel.receive(self.process.is_alive)
        except GONE as error:
            raise RunError("The process that acts died (killed, or out of memory?)") from error
        if isinstance(thing, Exception):
            raise thing
        return numbers or thing

    def rows(self, ticks: int) -> Rows:
        return self.stages[self.active_block].rows(ticks)

    def restore_rows(self, rows: dict[str, Tensor]) -> None:
        for name, values in rows.items():
            getattr(self.stages[self.active_block], name)[: len(values)] = values.numpy()

    def weights(self) -> Tensor:
        return self.weight_buffers[self.free_buffer]

    def call(self, verb: str, *args: Any) -> Any:
        self.channel.send_object((verb, args))
        return self._answer()

    def close(self) -> None:
        atexit.unregister(self._tell_to_end)
        self._tell_to_end()
        self.process.join(PATIENCE)
        if self.process.is_alive():
            self.process.kill()

    def _tell_to_end(self) -> None:
        with suppress(*GONE):
            self.channel.send_object(None)


class Server:
    """What the other process does: its methods are called by name."""

    def __init__(self, collector: Any, stages: list[Any], weight_buffers: list[Tensor]):
        self.collector, self.stages, self.weight_buffers = collector, stages, weight_buffers
        self.parts = {"collector": collector, "actor": collector.actor}
        self.begin, self.replay = collector.begin, collector.replay
        # The network's own tensors become views of one vector, so that new weights are one copy. The programs that act
        # read the tensors where they lie.
        self.weights = weight_buffers[0].clone()
        network = numbers_of(collector.actor.network)
        for tensor, view in zip(network, views(self.weights, network), strict=True):
            tensor.data = view

    def play(self, now: int, until: int, block: int, buffer: float, _: float) -> Numbers:
        """Fill the stage number `block`, until env_steps reach `until` at most, and take the weights of a buffer
        first, where one is named."""
        if buffer != NO_BUFFER:
            self.weights.copy_(self.weight_buffers[int(buffer)])
        collector, seconds = self.collector, {"act": 0.0, "env": 0.0}
        collector.stage = self.stages[block]
        now = collector.play(now, until, seconds)
        ticks = collector.stage.used
        collector.stage.take(collector.obs)
        return now, ticks, collector.due, seconds["act"], seconds["env"]

    def state(self) -> dict[str, Tensor]:
        own = {"weights": self.weights, "torch": torch.get_rng_state()}  # parts may draw from torch's own stream
        return pack(self.parts) | own

    def load(self, state: dict[str, Tensor]) -> None:
        self.weights.copy_(state["weights"])
        torch.set_rng_state(state["torch"])
        for _ in unpack(self.parts, state):
            pass


def serve(
    channel: Channel,
    make_collector: Callable[[], Any],
    make_stage: Callable[..., Any],
    weight_buffers: list[Tensor],
    shared: list[Tensor],
) -> None:
    """The other process, until nobody asks any more. Numbers ask it to play, anything else names a method."""
    end_with_parent()
    server, memory = None, iter(shared)
    alive = multiprocessing.parent_process().is_alive  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]  # it has one

    def zeros(shape: Sequence[int], dtype: Any) -> np.ndarray:
        return next(memory).numpy()

    with suppress(*GONE):
        while (asked := channel.receive(alive)) != (None, None):
            numbers, thing = asked
            try:
                if server is None:  # made at the first question, so that what goes wrong is the answer to it
                    stages = [make_stage(zeros=zeros), make_stage(zeros=zeros)]
                    server = Server(make_collector(), stages, weight_buffers)
                if numbers is not None:
                    channel.send(*server.play(*numbers))
                else:
                    channel.send_object(getattr(server, thing[0])(*thing[1]))
            except GONE:
                raise
            except (UsageError, RunError) as error:
                channel.send_object(error)
            except Exception as error:
                channel.send_object(RunError(f"the process that acts raised {type(error).__name__}: {error}"))
    if server is not None:
        server.collector.close()
