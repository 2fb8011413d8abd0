"""Recorded data as one stream (E = 1): a Minari dataset, or the memory of a run. Both come as blocks of `Rows`.

An episode of T decisions takes T rows and one marked `reset` that holds its last observation, as in the ring.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dqn.types import Rows, Spec

FIELDS = ("obs", "action", "reward", "terminated", "truncated", "reset")
BLOCK = 1024  # rows, so that no second copy of all the data is ever made


def count(blocks: Iterable[Rows]) -> int:
    """How many rows they are; a ring of this capacity holds them all, however short the episodes are."""
    return sum(len(block.action) for block in blocks)


def best(blocks: Iterable[Rows], share: float) -> Iterator[Rows]:
    """Only this share of the episodes, those with the largest returns, in their order; of equal ones the earlier.

    What is learnt from them is what filtered behaviour cloning imitates: Chen et al. (2021), Decision Transformer, §5.
    """
    blocks = [*blocks]
    column = {f: torch.cat([torch.as_tensor(getattr(b, f))[: len(b.action), 0] for b in blocks]) for f in FIELDS}
    reset = column["reset"].long()
    number = reset.cumsum(0) - reset  # [M] of the episode that a row belongs to, closed by a row marked reset
    count = int(number.max()) + 1
    returns = torch.zeros(count, dtype=torch.float64).index_add(0, number, column["reward"].double())
    decisions = torch.zeros(count, dtype=torch.int64).index_add(0, number, 1 - reset)
    ranked = returns.masked_fill(decisions == 0, -torch.inf).argsort(descending=True, stable=True)
    kept = ranked[: max(1, round(share * int((decisions > 0).sum())))]
    rows = torch.isin(number, kept)
    yield from _blocks({name: field[rows] for name, field in column.items()})


def padding_rows(spec: Spec, window: int) -> Rows:
    """What is seen after the last episode: nothing, for as long as the last starts must be followed by rows."""
    nothing = np.zeros((window, 1), bool)
    obs = np.zeros((window + 1, 1, *spec.obs_shape), spec.obs_dtype)
    return Rows(obs, nothing.astype(np.int64), nothing.astype(np.float32), nothing, nothing, ~nothing)


def _blocks(column: dict[str, Tensor]) -> Iterator[Rows]:
    """A column of rows [M, ...] in blocks; what is seen after the last is anything, the next block writes over it."""
    size = len(column["action"])
    for low in range(0, size, BLOCK):
        cut = {f: column[f][low : low + BLOCK] for f in FIELDS}
        behind = min(low + BLOCK, size - 1)
        cut["obs"] = torch.cat([cut["obs"], column["obs"][behind : behind + 1]])
        yield Rows(**{f: x.unsqueeze(1) for f, x in cut.items()})  # [K, 1, ...]


def minari_rows(dataset_id: str, spec: Spec | None = None) -> Iterator[Rows]:
    """The episodes of a Minari dataset on this machine, oldest first. Younis et al. (2024).

    An episode that stops without an end was cut there: a truncation.

    Errors: ValueError when Minari or the dataset is missing, its spaces are not Discrete actions and Box or Discrete
    observations, or they are not those of the environment, `spec`.
    """
    try:
        import minari  # pyright: ignore[reportMissingImports]

        data = minari.load_dataset(dataset_id)
    except ImportError as error:
        raise ValueError(f'the dataset {dataset_id} needs Minari: run pip install "dqn-family[offline]"') from error
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(
            f"{dataset_id} is neither a run's directory nor a dataset on this machine: run minari download {dataset_id}"
        ) from error
    _check(dataset_id, data.observation_space, data.action_space, spec)
    first_state, first_action = (int(getattr(x, "start", 0)) for x in (data.observation_space, data.action_space))
    for episode in data.iterate_episodes():
        if not len(episode.actions):
            continue
        fields = {
            "action": np.asarray(episode.actions, np.int64) - first_action,
            "reward": np.asarray(episode.rewards, np.float64),
            "terminated": np.asarray(episode.terminations, bool),
            "truncated": np.asarray(episode.truncations, bool),
            "reset": np.zeros(len(episode.actions), bool),
        }
        column = {f: _own_dtype(np.append(x, x.dtype.type(f == "reset"))) for f, x in fields.items()}
        column["truncated"][-2] |= ~column["terminated"][-2]
        obs = np.asarray(episode.observations)
        column["obs"] = _own_dtype(obs - first_state if first_state else obs)
        yield from _blocks(column)


def _own_dtype(array: np.ndarray) -> Tensor:
    """As the ring keeps it: torch's default dtype for every kind of float."""
    tensor = torch.as_tensor(array)
    return tensor.to(torch.get_default_dtype()) if tensor.is_floating_point() else tensor


def _check(dataset_id: str, observation: Any, action: Any, spec: Spec | None) -> None:
    from gymnasium.spaces import Box, Discrete

    if not isinstance(action, Discrete):
        raise ValueError(f"the actions of the dataset {dataset_id} are {action}: choose one with Discrete actions")
    if not isinstance(observation, (Box, Discrete)):
        raise ValueError(
            f"the observations of the dataset {dataset_id} are {type(observation).__name__}: "
            "choose one whose observations are Box or Discrete"
        )
    if spec is None:
        return
    states = int(observation.n) if isinstance(observation, Discrete) else 0
    has = _words(Spec(observation.shape or (), np.dtype(observation.dtype or np.int64), int(action.n), states))
    if has != _words(spec):
        raise ValueError(
            f"the dataset {dataset_id} has {has}, the environment {_words(spec)}: choose the environment it is from"
        )


def _words(spec: Spec) -> str:
    dtype = "float" if spec.obs_dtype.kind == "f" else spec.obs_dtype.name
    seen = f"{spec.states} states" if spec.states else f"observations {list(spec.obs_shape)} of {dtype}"
    packed = " (" + ", ".join(name for name, _ in spec.parts) + " packed into one)" if spec.parts else ""
    return f"{seen}{packed} and {spec.num_actions} actions"


def run_rows(chunks: list[dict[str, Tensor]], written: Tensor, rows: int, whole: bool = False) -> Iterator[Rows]:
    """The memory of another run from the chunks of its checkpoint, one environment after the other.

    `chunks` are what Ring.rows_since gave, oldest first; `written` [E] and `rows` are that ring's. A column that stops
    within an episode ends with a truncation and a row for what was seen then. `whole`: what is left of an episode whose
    start was overwritten is passed over, as frames before it would be missing.

    Errors: ValueError when the chunks hold no rows.
    """
    num_envs = len(written)
    if not chunks or not int(written.max()):
        raise ValueError("the run's checkpoint holds no replay rows: give the directory of a run that has stepped")
    fields = {f: torch.zeros(rows * num_envs, *chunks[0][f].shape[1:], dtype=chunks[0][f].dtype) for f in FIELDS}
    known = torch.zeros(rows * num_envs, dtype=torch.bool)
    for chunk in chunks:
        known[chunk["slot"]] = True
        for name, field in fields.items():
            field[chunk["slot"]] = chunk[name]
    for env, end in enumerate(written.tolist()):
        row = torch.arange(max(0, end - rows + 1), end + 1)  # the last is what is seen now
        slot = (row % rows) * num_envs + env
        slot = slot[(~known[slot]).flip(0).cumsum(0).flip(0) == 0]  # from the first row after the last gap
        if whole and end >= len(slot):  # its first row is gone
            slot = slot[fields["reset"][slot].cumsum(0) > 0][1:]
        if len(slot) > 1 and fields["reset"][slot[-2]]:  # what is seen now begins an episode without a decision yet
            slot = slot[:-1]
        if len(slot) < 2:
            continue
        column = {name: field[slot] for name, field in fields.items()}
        column["truncated"][-2] |= ~(column["terminated"][-2] | column["reset"][-2])
        for name in FIELDS[1:]:
            column[name][-1] = name == "reset"
        yield from _blocks(column)
