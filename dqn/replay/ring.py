"""The ring: the stream of every environment as it happened, and the FIFO of its legal starts.

Each environment writes its own column of rows. A row is a decision (obs, action, reward, terminated, truncated) or,
marked `reset`, the last observation of an episode, where nothing was decided. So the row after a decision always
holds its true next observation, in every autoreset mode, and a frame is stored once.

A start is legal when `window` further rows are written and it is a decision (for sequences: every `stride`-th row,
whatever it is); the FIFO holds the legal starts of each environment, oldest first, so a uniform draw over the FIFO is
exactly uniform over real transitions, with fixed shapes and no rejection. What a window finds after an episode's end
is masked by ops.returns. Of observations that are stacks of frames only the newest frame is kept; the rows before it,
as far as they are of its episode, make the stack whole again.
"""

from math import ceil, prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dqn.programs import Prepare, as_written
from dqn.replay.frames import newest, prove, whole
from dqn.replay.storage import blank, tensor_dtype
from dqn.types import Rows, Spec

FIELDS = ("obs", "action", "reward", "terminated", "truncated", "reset")


class Ring:
    """Storage for the last `capacity` transitions of `num_envs` environments; obs [R, E, ...], the rest [R, E].

    Episodes also need a row for their last observation: there is room for one per 16 decisions; where episodes are
    shorter, fewer transitions are kept. Unwritten floats are NaN, so a row that was never written cannot go unseen.
    Rows are numbered from 0 for ever; row w lies in slot w mod R. `state_size` > 0 also keeps what the network's core
    remembered before each row [R, E, S]. With `file` the observations lie there, on a CPU: a memory larger than the
    machine's, as fast as its page cache; what was not written is 0. With `frame_stack` k > 1, `spec` is that of one
    frame and blocks bring stacks [K+1, E, k, ...]: the last k frames of an episode, the newest last; where there are
    fewer, before them its first one (`frame_padding` is reset) or zeros (zero), as
    gymnasium.wrappers.FrameStackObservation calls it.

    Errors: ValueError when capacity, window, stride or frame_stack are not positive, or for another frame_padding.
    """

    def __init__(
        self, spec: Spec, capacity: int, num_envs: int, window: int = 1, device: torch.device | str = "cpu",
        stride: int | None = None, state_size: int = 0, file: Path | None = None, frame_stack: int = 1,
        frame_padding: str = "reset", prepare: Prepare = as_written,
    ):  # fmt: skip
        if min(capacity, window, frame_stack, 1 if stride is None else stride) < 1:
            raise ValueError(
                "a ring needs capacity, window, stride and frame_stack ≥ 1, got "
                f"{capacity}, {window}, {stride} and {frame_stack}"
            )
        self.write_program = prepare(self.write)
        self.stride, self.kept = stride, ceil(capacity / num_envs / (stride or 1))
        if frame_padding not in ("reset", "zero"):
            raise ValueError(f"replay.frame_padding must be reset or zero, got {frame_padding!r}")
        self.padding, self.before = frame_padding, frame_stack - 1  # rows before a start that its stack may need
        self.num_envs, self.window = num_envs, window
        self.rows = self.rows_for(capacity, num_envs, window + self.before, stride)
        self.fields = (*FIELDS, "core") if state_size else FIELDS
        shape = (self.rows, num_envs)
        self.obs = blank((*shape, *spec.obs_shape), spec.obs_dtype, device, file)
        bools = self.obs.dtype == torch.bool
        self.shown = self.obs.view(torch.uint8) if bools else self.obs  # bytes vectorise, bools do not
        self.action = torch.zeros(shape, dtype=torch.int64, device=device)
        self.reward = torch.full(shape, float("nan"), device=device)
        self.terminated = torch.zeros(shape, dtype=torch.bool, device=device)
        self.truncated = torch.zeros(shape, dtype=torch.bool, device=device)
        self.reset = torch.ones(shape, dtype=torch.bool, device=device)  # where nothing was written, none was decided
        self.core = torch.zeros(*shape, state_size, device=device)
        self.starts = torch.zeros(self.rows + 1, num_envs, dtype=torch.int64, device=device)  # FIFO of row numbers
        self.written = torch.zeros(num_envs, dtype=torch.int64, device=device)  # rows so far
        self.added = torch.zeros_like(self.written)  # starts that ever became legal
        self.evicted = torch.zeros_like(self.written)  # starts that were overwritten since
        self.env = torch.arange(num_envs, device=device)
        self.back = torch.arange(frame_stack, device=device) if self.before else None
        self.fresh, self.moved = True, 0  # nothing has come yet; rows that may have come, as the host knows it
        self.xp: Any = np if self.device.type == "cpu" else torch
        tensors = {name: x for name, x in vars(self).items() if isinstance(x, Tensor)}
        self.here = self.seen(tensors)

    @staticmethod
    def rows_for(capacity: int, num_envs: int, window: int, stride: int | None = None) -> int:
        kept = max(ceil(capacity / num_envs), stride or 1)  # there is always a start, once there was one
        return kept + ceil(kept / 16) + window + 1

    @classmethod
    def bytes_for(
        cls, spec: Spec, capacity: int, num_envs: int, window: int, state_size: int = 0, stride: int | None = None,
        frame_stack: int = 1,
    ) -> int:  # fmt: skip
        """Memory a ring of these sizes takes, in bytes."""
        obs, real = prod(spec.obs_shape) * tensor_dtype(spec.obs_dtype).itemsize, torch.get_default_dtype().itemsize
        row = obs + 8 + real + 3 + state_size * real + 8
        return (cls.rows_for(capacity, num_envs, window + frame_stack - 1, stride) * row + 8) * num_envs

    @property
    def device(self) -> torch.device:
        return self.action.device

    @property
    def count(self) -> Tensor:
        """Legal starts of each environment, [E]."""
        return self.added - self.evicted

    def __len__(self) -> int:
        return int(self.count.sum())

    def fill(self) -> float:
        """How much of the capacity is in use, 0 to 1."""
        return min(1.0, len(self) / (self.kept * self.num_envs))

    # What follows is written once for two array libraries: on a CPU, NumPy sees the tensors' memory and takes a sixth
    # of torch's time for such small steps; elsewhere it is torch, and nothing waits for the device.

    def seen(self, tensors: dict[str, Tensor]) -> dict[str, Any]:
        """Tensors as that library has them: on a CPU arrays of the same memory."""
        return {name: x.numpy() for name, x in tensors.items()} if self.xp is np else tensors

    def _block(self, values: Any) -> Any:
        if self.xp is np:
            return np.asarray(values.cpu() if isinstance(values, Tensor) else values)
        return torch.as_tensor(values).to(self.device)

    def counted(self, number: int) -> Any:
        """0 … number − 1 as a column [number, 1]."""
        return np.arange(number)[:, None] if self.xp is np else torch.arange(number, device=self.device)[:, None]

    def extend(self, rows: Rows) -> None:
        """Write a block of K ticks and what is seen now (`rows.obs[K]`); K may be at most half the ring."""
        ticks, ends = len(rows.action), [] if rows.splits is None else [rows.splits, rows.final_obs]
        if (most := ticks * (2 if ends else 1)) >= self.rows:
            raise ValueError(f"a block of {ticks} ticks does not fit a ring of {self.rows} rows: raise replay.capacity")
        (slot,) = self.write_program(*map(self._block, (*(getattr(rows, f) for f in self.fields), *ends)))
        if self.before and self.fresh:
            at = torch.as_tensor(slot * self.num_envs + self.here["env"])
            prove(self.observations_at(at), self._block(rows.obs)[:-1], self.before + 1, self.padding)
        self.fresh, self.moved = False, self.moved + most

    def write(self, *given: Any) -> tuple[Any]:
        """What `extend` does with a block's fields [K, E] (obs [K+1, E, ...]), and where episodes end so that a row
        stands between, with `splits` and `final_obs`. `prepare` makes the program of it that runs. Gives the slots
        [K, E]."""
        block, ends = dict(zip(self.fields, given, strict=False)), given[len(self.fields) :]
        block["obs"] = newest(block["obs"], self.obs)
        here, written, env, ticks = self.here, self.here["written"], self.here["env"], len(block["action"])
        before, counted = written + 0, self.counted(2 * ticks + 1 if ends else ticks + 1)
        if not ends:
            slot = (before + counted) % self.rows
            written += ticks
        else:  # the episode's last observation takes a row of its own after the decision that ended it
            splits, final = ends[0], newest(ends[1], self.obs)
            reach = (1 + splits * 1).cumsum(0)
            slot = (before + self.xp.concatenate((reach[:1] * 0, reach))) % self.rows
            written += reach[-1]
            after = (slot[:-1] + 1) % self.rows  # where nothing ended the next tick's row lies there, written below
            shape = (*splits.shape, *[1] * (block["obs"].ndim - 2))
            here["obs"][after, env] = self.xp.where(splits.reshape(shape), final, block["obs"][1:])
            for field in self.fields[1:]:  # made there: a number would travel
                here[field][after, env] = (self.xp.ones_like if field == "reset" else self.xp.zeros_like)(block[field])
        seen, decided = self._places(slot)
        here["obs"][seen] = block["obs"]
        for field in self.fields[1:]:
            here[field][decided] = block[field]
        self._register(before, counted[:-1], some=bool(ends))
        return (slot[:-1],)

    def _places(self, slot: Any) -> tuple[Any, Any]:
        """What rows in `slot` [K+1, E] are written by, with and without the last: ranges where they are such, as an
        array is then written in a quarter of the time."""
        if self.xp is np and self.num_envs == 1 and (first := slot.item(0)) + len(slot) == slot.item(-1) + 1:
            return slice(first, first + len(slot)), slice(first, first + len(slot) - 1)
        return (slot, self.here["env"]), (slot[:-1], self.here["env"])

    def observations_at(self, at: Tensor) -> Tensor:
        """Observations of rows by their places [...] in [R · E], stacks made whole: [..., *obs_shape]."""
        frames = self.shown.flatten(0, 1)
        if self.back is not None:
            return whole(frames, self.reset, at, self.back, self.num_envs, self.padding)
        return frames.index_select(0, at.flatten()).unflatten(0, at.shape)

    def _register(self, before: Any, counted: Any, some: bool) -> None:
        """Append the starts whose window is now complete, which of the rows counted may be `some`; drop those whose
        row is overwritten."""
        xp, env, written = self.xp, self.here["env"], self.here["written"]
        starts, added, evicted = self.here["starts"], self.here["added"], self.here["evicted"]
        row = counted + (before + (1 - self.window))  # [M, E] candidates, as row numbers; below 0 nothing is decided
        legal = ~self._at("reset", row) if self.stride is None else (row >= 0) & (row % self.stride == 0)
        overwritten = written + (self.before - self.rows)  # starts up to here are gone: first they go, then new come
        oldest = counted + evicted
        evicted += ((self._at("starts", oldest) <= overwritten) & (oldest < added)).sum(0)
        if some:
            legal = legal & (row <= written - self.window)
        if len(row) + self.window + self.before > self.rows:
            legal = legal & (row > overwritten)
        number = legal.cumsum(0)
        place = (number + (added - 1)) % self.rows
        starts[xp.where(legal, place, self.rows), env] = row  # the last row of `starts` takes what has no place
        added += number[-1]
        evicted[:] = xp.maximum(evicted, added - self.kept)

    def _at(self, name: str, row: Any) -> Any:
        """A field of rows by their numbers [M, E]."""
        slot = row % self.rows
        return self.here[name].take(slot if self.num_envs == 1 else slot * self.num_envs + self.here["env"])

    def cut(self) -> None:
        """End the running episodes here, as a truncation: the environments are about to be reset from outside."""
        last = (self.written - 1).clamp_min(0) % self.rows
        running = ~self.terminated[last, self.env] & ~self.reset[last, self.env] & (self.written > 0)
        self.truncated[last, self.env] |= running

    # What a checkpoint needs: the numbers whole, the rows since the last one.

    NUMBERS = ("starts", "written", "added", "evicted")

    def state(self) -> dict[str, Tensor]:
        return {name: getattr(self, name)[: self.rows] for name in self.NUMBERS}

    def load(self, state: dict[str, Tensor]) -> None:
        self.fresh = False
        for name in self.NUMBERS:
            getattr(self, name)[: self.rows].copy_(state[name])

    def rows_since(self, since: Tensor) -> dict[str, Tensor]:
        """The rows from `since` [E] up to what is seen now, flat: slots [M] and each field [M, ...]."""
        first = torch.maximum((since - 1).clamp_min(0), self.written - self.rows + 1)  # a cut rewrites one row
        row = first + torch.arange(int((self.written - first).max()) + 1, device=self.device)[:, None]  # [M, E]
        flat = ((row % self.rows) * self.num_envs + self.env)[row <= self.written]
        return {"slot": flat, **{f: getattr(self, f).flatten(0, 1)[flat] for f in self.fields}}

    def restore_rows(self, chunk: dict[str, Tensor]) -> None:
        for field in self.fields:
            getattr(self, field).view(-1, *getattr(self, field).shape[2:])[chunk["slot"]] = chunk[field].to(self.device)
