"""Records: what the adapter packs, the network takes apart; and the places in between."""

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary
from hypothesis import given, settings
from hypothesis import strategies as st

from dqn.envs.spaces import Actions, Observations
from dqn.execution.inductor.compiled import compiler_missing, record
from dqn.networks.records import inner, split
from dqn.types import MASK, Spec, layout

F4, U1, B1, I8 = (np.dtype(name) for name in ("float32", "uint8", "bool", "int64"))
SHAPES = st.lists(st.integers(1, 5), max_size=3).map(tuple)
SPACES = st.one_of(
    SHAPES.filter(lambda s: len(s) < 3).map(lambda shape: Box(-9, 9, shape, np.float32)),
    SHAPES.map(lambda shape: Box(0, 255, shape, np.uint8)),
    SHAPES.map(lambda shape: Box(0, 1, shape, bool)),
    st.integers(1, 9).map(Discrete),
    st.integers(1, 9).map(MultiBinary),
)


def by_hand(parts, record):
    """One record's parts, from its bytes alone: each begins at the next multiple of 8 after the one before."""
    raw, place, found = record.tobytes(), 0, {}
    for name, part in parts:
        while place % 8:
            place += 1
        size = part.obs_dtype.itemsize
        for length in part.obs_shape:
            size *= length
        found[name] = np.frombuffer(raw[place : place + size], part.obs_dtype).reshape(part.obs_shape)
        place += size
    assert len(raw) == (place + 7) // 8 * 8
    return found


@settings(deadline=None, max_examples=150)
@given(
    spaces=st.lists(SPACES, min_size=1, max_size=5), masked=st.booleans(), envs=st.integers(1, 3), seed=st.integers(0)
)
def test_records_round_trip_for_any_parts(spaces, masked, envs, seed):
    space = Dict({f"part{i}": each for i, each in enumerate(spaces)})
    space.seed(seed % 2**31)
    shown = [space.sample() for _ in range(envs)]
    mask = np.random.default_rng(seed).random((envs, 3)) < 0.5
    reader = Observations("world", space, Actions("world", Discrete(3)), masked)
    batch = {name: np.stack([one[name] for one in shown]) for name in space.spaces}
    record = reader.read(batch, mask if masked else None)
    assert record.shape == (envs, *reader.spec.obs_shape)
    assert record.dtype == reader.spec.obs_dtype == np.uint8
    parts = reader.spec.parts
    # rows of a ring, picked in another order, as sampling does
    ring = torch.from_numpy(np.stack([record, record[::-1]]))  # [2, E, bytes]
    picked = ring[torch.tensor([[1], [0]]), torch.arange(envs)]
    found = split(parts, picked)
    assert list(found) == [name for name, _ in parts] == [*space.spaces, *["action_mask"] * masked]
    for e in range(envs):
        hand = by_hand(parts, record[e])
        for name, part in parts:
            want = mask[e] if name == "action_mask" else shown[e][name]
            assert found[name].shape == (2, envs, *part.obs_shape)
            assert np.array_equal(found[name][1, e].numpy(), np.asarray(want, part.obs_dtype))
            assert np.array_equal(found[name][0, envs - 1 - e].numpy(), hand[name])


def test_parts_are_views_at_places_their_dtype_may_lie():
    parts = (("a", Spec((3,), U1, 2)), ("b", Spec((), I8, 2, 5)), ("c", Spec((1,), F4, 2)), ("d", Spec((2, 2), B1, 2)))
    assert layout(parts) == ((0, 8, 16, 24), 32)
    record = torch.zeros(4, 2, 32, dtype=torch.uint8)
    found = split(parts, record)
    for (name, part), offset in zip(parts, (0, 8, 16, 24), strict=True):
        if part.obs_dtype != B1:  # bools are made of their bytes
            assert found[name].data_ptr() == record.data_ptr() + offset
        assert found[name].shape == (4, 2, *part.obs_shape)
        assert offset % part.obs_dtype.itemsize == 0
    found["b"][3, 1] = 7
    assert record[3, 1, 8] == 7
    assert split(parts, record[0, 0])["b"].shape == ()
    assert layout(()) == ((), 0)


def test_float64_parts_where_that_is_the_default():
    torch.set_default_dtype(torch.float64)
    try:
        reader = Observations("world", Dict({"x": Box(-1, 1, (3,)), "n": Discrete(4)}), Actions("world", Discrete(2)))
        x = np.array([[0.1, 0.2, 1 / 3]])
        found = split(reader.spec.parts, torch.from_numpy(reader.read({"x": x, "n": np.array([3])})))
    finally:
        torch.set_default_dtype(torch.float32)
    assert found["x"].dtype == torch.float64
    assert found["x"].tolist() == x.tolist()


@pytest.mark.skipif(bool(compiler_missing()), reason="no C++ compiler")
def test_a_mask_compiles():
    """bools seen in bytes do not: every masked world then ran as written."""
    parts = (("x", Spec((4,), np.dtype(np.float32), 4)), (MASK, Spec((4,), np.dtype(bool), 4)))
    obs = np.zeros((6, layout(parts)[1]), np.uint8)
    obs[:, 16:20:2], obs[:, :16] = 1, np.arange(16)
    ring = torch.from_numpy(obs)

    def step(at):
        seen = split(parts, ring.index_select(0, at))
        mean = (seen["x"] * seen[MASK]).sum(-1, keepdim=True) / seen[MASK].sum(-1, keepdim=True)
        return (seen["x"] - mean).masked_fill(~seen[MASK], 0.0), seen[MASK].float().mean()

    at = torch.tensor([0, 5, 3])
    for got, want in zip(record(step, None, at)(at), step(at), strict=True):
        torch.testing.assert_close(got, want)


def test_what_is_no_record_is_refused():
    parts = (("a", Spec((3,), U1, 2)),)
    for bad in (torch.zeros(2, 3, dtype=torch.uint8), torch.zeros(2, 8)):
        with pytest.raises(ValueError, match=r"a record of a is uint8 \[\.\.\., 8\]"):
            split(parts, bad)


def test_a_torso_sees_the_parts_without_the_mask_and_a_lone_observation_as_itself():
    mask, vector, states = Spec((2,), B1, 2), Spec((3,), F4, 2), Spec((), I8, 2, 6)

    def record(*parts):
        return Spec((layout(parts)[1],), U1, 2, 0, parts)

    assert inner(vector) == vector
    assert inner(record(("observation", states), ("action_mask", mask))) is states
    assert inner(record(("observation", vector))) is vector
    assert inner(record(("x", vector), ("action_mask", mask))).parts == (("x", vector),)
    both = record(("x", vector), ("n", states))
    assert inner(both) == both
