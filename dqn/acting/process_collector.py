"""The remote collector: acts in a process of its own while this one learns, one learning phase ahead of it."""

import atexit
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, multiprocessing

from dqn.acting.channel import Line, Numbers, line
from dqn.acting.weight_vector import flat, numbers_of, views
from dqn.errors import RunError, UsageError
from dqn.ops.clock import Times, crossed
from dqn.processes import end_with_parent, ignore_signals
from dqn.state import pack, part, unpack
from dqn.types import Rows

NONE = -1  # no box
GONE = (EOFError, BrokenPipeError, ConnectionResetError)
PATIENCE = 5.0  # seconds for the other process to end by itself


class RemoteCollector:
    """A collector in another process, which plays on while this one stores and learns. The same door as
    collector.Collector.

    When a block of rows has come in, the next one is begun at once, and only then are these stored and learnt from.
    Behind a block at whose end updates are due it is begun with the weights of that moment: so actions are taken by
    weights one learning phase old, whoever is faster, and the run is as deterministic as any. Nothing is begun ahead of
    a synchronisation point, or of the end.

    Both processes see two stages, filled in turn, and two boxes for weights. `stage(zeros)` makes a stage in the memory
    that `zeros` gives, `make()` the collector over there. Errors: RunError where the other process died or broke, and
    what is raised there of dqn.types.
    """

    def __init__(self, make: Callable[[], Any], stage: Callable[..., Any], envs: Any, online: Any):
        self.envs, self.num_envs, self.online = envs, envs.num_envs, numbers_of(online)
        self.boxes, self.box = [flat(self.online).cpu().share_memory_() for _ in range(2)], 0
        self.places = [views(box, self.online) for box in self.boxes]
        memory: list[Tensor] = []

        def zeros(shape: Sequence[int], dtype: Any) -> np.ndarray:
            memory.append(torch.from_numpy(np.zeros(shape, dtype)).share_memory_())
            return memory[-1].numpy()

        self.stages, self.turn = [stage(zeros=zeros), stage(zeros=zeros)], 0
        context = multiprocessing.get_context("spawn")  # a forked child of a threaded torch may hang
        self.line, theirs = line(context)
        self.process = context.Process(target=serve, args=(theirs, make, stage, self.boxes, memory), daemon=True)
        with ignore_signals():
            self.process.start()
        theirs.pipe.close()
        atexit.register(self._end)  # or an interpreter that ends without `close` would wait for it for ever
        self.ahead, self.due, self.fresh, self.come = False, False, False, None

    def collect(self, now: int, times: Times, store: Callable[[Rows], None], seconds: dict[str, float]) -> int:
        """What was played ahead, or else is now, until anything is due; returns where env_steps stand. Rows go to
        `store` in blocks."""
        begin, before, until = perf_counter(), now, times.next_stop(now)
        if not self.ahead:
            self._play(now, until)
        with torch.no_grad():
            torch._foreach_copy_(self.places[self.box], self.online)  # pyright: ignore[reportPrivateImportUsage]  # torch's types hide _foreach_*
        usual = _behind(before, until, until, times)  # asked before it is known: the other process waits for it
        while True:
            now, ticks, due, act, env = self.come or self._receive()
            fresh, then = usual if now == until else _behind(before, now, until, times)
            stage, self.come, arrived = self.stages[self.turn], None, now >= until
            self.fresh, self.due = self.fresh or fresh, due > 0 and arrived
            self.ahead = then > 0 and not self.due
            if self.ahead:
                self._play(now, then)
            seconds["act"], seconds["env"] = seconds["act"] + act, seconds["env"] + env
            seconds["wait"] += perf_counter() - begin
            store(stage.rows(ticks))
            if arrived:
                return now
            begin = perf_counter()

    def _play(self, now: int, until: int) -> None:
        self.turn, box = 1 - self.turn, NONE
        if self.fresh:
            self.fresh, box, self.box = False, self.box, 1 - self.box
        self.line.send(now, until, self.turn, box)

    def _receive(self) -> Any:
        try:
            numbers, thing = self.line.receive(self.process.is_alive)
        except GONE as error:
            raise RunError("The process that acts died (killed, or out of memory?)") from error
        if isinstance(thing, Exception):
            raise thing
        return numbers or thing

    def _ask(self, verb: str, *args: Any) -> Any:
        self.line.hand((verb, args))
        return self._receive()

    def begin(self, seed: int) -> Rows | None:
        """Reset every environment; returns the rows that close what ran before, where something did."""
        self.ahead, self.due, self.come = False, False, None
        return self._ask("begin", seed)

    def close(self) -> None:
        atexit.unregister(self._end)
        self._end()
        self.process.join(PATIENCE)
        if self.process.is_alive():
            self.process.kill()
        self.envs.close()

    def _end(self) -> None:
        with suppress(*GONE):
            self.line.hand(None)

    def state(self) -> dict[str, Tensor]:
        """The other collector's, the weights that it gets next, and the block that was played ahead."""
        if self.ahead and self.come is None:
            self.come = self._receive()
        tensors = {f"there/{name}": x for name, x in self._ask("state").items()}
        tensors |= {"fresh": torch.tensor(self.fresh), "box": self.boxes[self.box]}
        if self.come is not None:
            rows = vars(self.stages[self.turn].rows(self.come[1])).items()
            tensors |= {f"ahead/{k}": torch.from_numpy(x) for k, x in rows if x is not None and k != "told"}
            tensors["come"] = torch.tensor(self.come[:3])
        return tensors

    def load(self, state: dict[str, Tensor]) -> None:
        self._ask("load", part(state, "there/"))
        self.fresh = bool(state["fresh"])
        self.boxes[self.box].copy_(state["box"])
        if "come" in state:
            self.ahead, self.come = True, (*state["come"].tolist(), 0.0, 0.0)
            for name, rows in part(state, "ahead/").items():
                getattr(self.stages[self.turn], name)[: len(rows)] = rows.numpy()

    def replay(self, seed: int) -> bool:
        """Bring the environments back to where `load` says they stood; whether they came there."""
        return self._ask("replay", seed)


def _behind(before: int, now: int, until: int, times: Times) -> tuple[bool, int]:
    """What follows a block that ends at `now`, of those from `before` to `until`: whether there will be new weights,
    and up to where the next goes, 0 for none."""
    arrived = now >= until
    point = arrived and crossed(before, now, times.checkpoint_every) > 0
    fresh = arrived and times.updates_due(before, now) > 0
    return fresh, 0 if point or now >= times.steps else times.next_stop(now)


class Server:
    """What the other process does, by the names in which it is asked to."""

    def __init__(self, collector: Any, stages: list[Any], boxes: list[Tensor]):
        self.collector, self.stages, self.boxes, self.weights = collector, stages, boxes, boxes[0].clone()
        self.parts = {"collector": collector, "actor": collector.actor}
        self.begin, self.replay = collector.begin, collector.replay
        held = numbers_of(collector.actor.network)
        for tensor, place in zip(held, views(self.weights, held), strict=True):
            tensor.data = place

    def play(self, now: int, until: int, turn: int, box: float, _: float) -> Numbers:
        """Fill stage `turn`, at most until env_steps reach `until`, by the weights in a box from now on."""
        if box != NONE:
            self.weights.copy_(self.boxes[int(box)])
        collector, seconds = self.collector, {"act": 0.0, "env": 0.0}
        collector.stage = self.stages[turn]
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
    line: Line, make: Callable[[], Any], stage: Callable[..., Any], boxes: list[Tensor], memory: list[Tensor]
) -> None:  # fmt: skip
    """The other process, until nobody asks any more."""
    end_with_parent()
    server, shared, alive = None, iter(memory), multiprocessing.parent_process().is_alive  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]  # it has one

    def zeros(shape: Sequence[int], dtype: Any) -> np.ndarray:
        return next(shared).numpy()

    with suppress(*GONE):
        while (asked := line.receive(alive)) != (None, None):
            numbers, thing = asked
            try:
                if server is None:
                    server = Server(make(), [stage(zeros=zeros), stage(zeros=zeros)], boxes)
                if numbers is not None:
                    line.send(*server.play(*numbers))
                else:
                    line.hand(getattr(server, thing[0])(*thing[1]))
            except GONE:
                raise
            except (UsageError, RunError) as error:
                line.hand(error)
            except Exception as error:
                line.hand(RunError(f"the process that acts raised {type(error).__name__}: {error}"))
    if server is not None:
        server.collector.close()
