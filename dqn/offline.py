"""Learning from recorded data: where it comes from, and the collector that plays nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from dqn.ops.clock import Times
from dqn.replay.dataset import minari_rows, run_rows
from dqn.tracking.checkpoint import Checkpoints
from dqn.types import Rows, Spec


def recorded(path: str, spec: Spec, kept: Spec) -> list[Rows]:
    """The rows of a run's own replay memory, where `path` is its directory, else of a Minari dataset. They may bring
    what is seen, `spec`, or what is `kept` of it: single frames, from a memory that did the same."""
    directory = Path(path)
    if not directory.is_dir():
        return [*minari_rows(path, spec)]  # which asks the dataset itself whether it fits
    snapshot = Checkpoints(directory / "checkpoints").load()
    written, slots = (snapshot.tensors[f"memory/ring/{name}"] for name in ("written", "starts"))
    blocks = [*run_rows(snapshot.chunks, written, slots.shape[0], whole=kept is not spec)]
    shape, kind = tuple(blocks[0].obs.shape[2:]), blocks[0].obs.dtype
    if shape not in (spec.obs_shape, kept.obs_shape):
        raise ValueError(f"replay.path={path} shows observations {shape} {kind}, env has {spec.obs_shape}: "
                         "choose the environment that it was recorded in, and its replay.frame_stack")  # fmt: skip
    floats, actions = kind.is_floating_point, max(int(block.action.max()) for block in blocks) + 1
    states = max(int(block.obs.max()) for block in blocks) + 1 if spec.states else 0
    if floats != (spec.obs_dtype.kind == "f") or actions > spec.num_actions or states > spec.states:
        raise ValueError(
            f"replay.path={path} holds {kind}, {states} states and {actions} actions at least, env {spec.obs_dtype}, "
            f"{spec.states} states and {spec.num_actions} actions: choose the environment that it was recorded in"
        )
    return blocks


class Offline:
    """Nothing is collected: the memory is a dataset, and env_steps only count the time until the next update."""

    num_envs, due = 1, False

    def __init__(self, envs: Any):
        self.envs = envs  # of the run's kind, for what is asked of them

    def collect(self, now: int, times: Times, store: Callable[[Rows], None], seconds: dict[str, float]) -> int:
        return times.next_stop(now)

    def begin(self, seed: int) -> None:
        return None

    def close(self) -> None:
        self.envs.close()

    def state(self) -> dict[str, Tensor]:
        return {}

    def load(self, state: dict[str, Tensor]) -> None:
        pass

    def replay(self, seed: int) -> bool:
        return True
