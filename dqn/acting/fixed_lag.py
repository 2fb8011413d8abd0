"""Acting elsewhere while this process learns, one learning phase ahead of it: the schedule, whatever the transport."""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

import torch
from torch import Tensor

from dqn.ops.clock import Times, crossed
from dqn.protocols import Environments
from dqn.state import part
from dqn.types import Rows


@dataclass
class Played:
    """What is known of a block of rows that was played elsewhere."""

    env_steps: int  # where env_steps stood at its end
    ticks: int
    due: int  # not 0: a synchronisation point must come
    act_seconds: float = 0.0
    env_seconds: float = 0.0


class Transport(Protocol):
    """How blocks and weights travel between this process and the one that acts."""

    def write_weights(self) -> None:
        """Put the online network's weights where the other side finds them when it is next told to take them."""
        ...

    def play(self, now: int, until: int, take_weights: bool) -> None:
        """Begin a block, from env_steps `now` to `until` at most; does not wait for it."""
        ...

    def receive(self) -> Played:
        """Wait for the block that was begun."""
        ...

    def rows(self, ticks: int) -> Rows:
        """The rows of the block that was received last. They hold until the block after the next one begins."""
        ...

    def restore_rows(self, rows: dict[str, Tensor]) -> None:
        """Put rows back as those of the block that was received last."""
        ...

    def weights(self) -> Tensor:
        """The weights that were written last, as one vector; they may be written into."""
        ...

    def call(self, verb: str, *args: Any) -> Any:
        """Call a method of the collector on the other side, and wait for its result."""
        ...

    def close(self) -> None: ...


class FixedLagCollector:
    """A collector whose environments play on elsewhere while this process stores and learns.

    When a block of rows has been received, the next one is begun at once, and only then are these rows stored and
    learnt from. After a block at whose end updates are due, the next one begins with the weights as they are at that
    moment. So actions are always taken by weights one learning phase old, whichever side is faster, and a run is as
    deterministic as one in a single process. No block is begun ahead of a synchronisation point or of the end.

    The interface is that of collector.Collector. `envs` are environments of the same kind, for what is asked of them.
    """

    def __init__(self, transport: Transport, envs: Environments):
        self.transport, self.envs, self.num_envs = transport, envs, envs.num_envs
        self.ahead = False  # a block was begun that has not been stored
        self.received: Played | None = None  # that block, where it was waited for already: at a checkpoint
        self.weights_pending = False  # the next block begins with new weights
        self.due = False

    def collect(self, now: int, times: Times, store: Callable[[Rows], None], seconds: dict[str, float]) -> int:
        """Take blocks, the one that was begun ahead first, until anything is due; returns where env_steps stand. Rows
        go to `store` in blocks."""
        waiting_since, before, until = perf_counter(), now, times.next_stop(now)
        if not self.ahead:
            self._play(now, until)
        self.transport.write_weights()  # as they are after the last learning phase
        # What follows a whole block is worked out before the block has come, because the other side waits for it.
        follows = _next_block(before, until, until, times)
        while True:
            played = self.received or self.transport.receive()
            self.received, now = None, played.env_steps
            arrived = now >= until
            weights_due, then = follows if now == until else _next_block(before, now, until, times)
            self.weights_pending = self.weights_pending or weights_due
            self.due = played.due > 0 and arrived
            rows = self.transport.rows(played.ticks)
            self.ahead = then > 0 and not self.due
            if self.ahead:
                self._play(now, then)
            seconds["act"] += played.act_seconds
            seconds["env"] += played.env_seconds
            seconds["wait"] += perf_counter() - waiting_since
            store(rows)
            if arrived:
                return now
            waiting_since = perf_counter()

    def _play(self, now: int, until: int) -> None:
        self.transport.play(now, until, self.weights_pending)
        self.weights_pending = False

    def begin(self, seed: int) -> Rows | None:
        """Reset every environment; returns the rows that close what ran before, where something did."""
        self.ahead, self.due, self.received = False, False, None
        return self.transport.call("begin", seed)

    def replay(self, seed: int) -> bool:
        """Bring the environments back to where `load` says they stood; whether they came there."""
        return self.transport.call("replay", seed)

    def close(self) -> None:
        self.transport.close()
        self.envs.close()

    def state(self) -> dict[str, Tensor]:
        """The other side's state, the weights that it takes next, and the block that was played ahead."""
        if self.ahead and self.received is None:
            self.received = self.transport.receive()
        tensors = {f"there/{name}": x for name, x in self.transport.call("state").items()}
        tensors |= {"weights_pending": torch.tensor(self.weights_pending), "weights": self.transport.weights()}
        if self.received is not None:
            rows = vars(self.transport.rows(self.received.ticks)).items()
            tensors |= {f"ahead/{k}": torch.from_numpy(x) for k, x in rows if x is not None and k != "episode_info"}
            tensors["played"] = torch.tensor([self.received.env_steps, self.received.ticks, self.received.due])
        return tensors

    def load(self, state: dict[str, Tensor]) -> None:
        self.transport.call("load", part(state, "there/"))
        self.weights_pending = bool(state["weights_pending"])
        self.transport.weights().copy_(state["weights"])
        if "played" in state:
            self.ahead, self.received = True, Played(*state["played"].tolist())
            self.transport.restore_rows(part(state, "ahead/"))


def _next_block(before: int, now: int, until: int, times: Times) -> tuple[bool, int]:
    """What follows a block that ends at `now`, of those from `before` to `until`: whether there will be new weights,
    and up to where the next block goes, 0 for none."""
    arrived = now >= until
    synchronises = arrived and crossed(before, now, times.checkpoint_every) > 0
    weights_due = arrived and times.updates_due(before, now) > 0
    return weights_due, 0 if synchronises or now >= times.steps else times.next_stop(now)
