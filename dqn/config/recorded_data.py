"""Recorded data to learn from: the replay memory of a run, or a dataset of Minari."""

from pathlib import Path

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
