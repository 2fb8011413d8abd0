from pathlib import Path

import numpy as np
import pytest
import torch
from worlds import Counting  # noqa: F401

from dqn.replay.memory import Memory
from dqn.replay.ring import Ring
from dqn.replay.samplers import Newest, Uniform
from dqn.resources import resident_memory
from dqn.types import Rows, Spec

SPEC = Spec((2,), np.dtype(np.float32), 3)


def rows(first, ticks, num_envs, rng, done=0.1):
    """Ticks numbered from `first`: obs and action tell the tick and the environment."""
    time = np.arange(first, first + ticks + 1)[:, None] + np.zeros(num_envs)
    obs = np.stack([time, time * 0 + np.arange(num_envs)], -1).astype(np.float32)
    over = rng.random((ticks, num_envs)) < done
    no = np.zeros((ticks, num_envs), bool)
    return Rows(obs, time[:-1].astype(int) % 3, np.ones((ticks, num_envs), np.float32), over, no, no)


def filled(capacity, num_envs, ticks, window=1, block=7, seed=0):
    ring, rng, t = Ring(SPEC, capacity, num_envs, window), np.random.default_rng(seed), 0
    while t < ticks:
        ring.extend(rows(t, block, num_envs, rng))
        t += block
    return ring


@pytest.mark.parametrize("num_envs", [1, 5])
def test_uniform_sampling_is_uniform_over_legal_starts_after_wrapping(num_envs):
    ring = filled(100, num_envs, 300)
    draws = 200_000
    slot, env, weight = Uniform(draws).sample(ring, torch.Generator().manual_seed(1))
    flat = torch.bincount(slot * num_envs + env, minlength=ring.rows * num_envs)
    legal = flat[flat > 0]
    assert len(legal) == len(ring)
    expected = draws / len(ring)
    chi2 = ((legal - expected) ** 2 / expected).sum().item()
    df = len(ring) - 1
    assert abs(chi2 - df) < 5 * (2 * df) ** 0.5
    assert (weight == 1).all()


def test_unwritten_rows_hold_nan_and_are_never_sampled():
    ring = filled(1000, 3, 30, window=3)
    assert ring.obs.isnan().any()
    memory = Memory(ring, Uniform(100_000), 0.9, 3, torch.Generator().manual_seed(0))
    got = memory.sample()
    assert all(x.isfinite().all() for x in (got.obs, got.reward, got.discount))


def test_the_ring_keeps_copies():
    block = rows(0, 4, 1, np.random.default_rng(0))
    ring = Ring(SPEC, 10, 1)
    ring.extend(block)
    block.obs[:] = -1
    block.reward[:] = -1
    assert not (ring.obs == -1).any()
    assert not (ring.reward == -1).any()


def test_how_the_stream_is_cut_into_blocks_changes_nothing():
    one, many = filled(50, 2, 84, window=3, block=1), filled(50, 2, 84, window=3, block=12)
    for name in (
        "obs",
        "action",
        "reward",
        "terminated",
        "truncated",
        "reset",
        "starts",
        "written",
        "added",
        "evicted",
    ):
        assert torch.equal(*(torch.nan_to_num(getattr(ring, name).double()) for ring in (one, many))), name
    pairs = [
        {(int(r.starts[k % r.rows, e]), e) for e in range(2) for k in range(int(r.evicted[e]), int(r.added[e]))}
        for r in (one, many)
    ]
    assert pairs[0] == pairs[1]


def test_newest_uses_every_transition_once():
    ring, rng, newest = Ring(SPEC, 20, 2), np.random.default_rng(0), Newest(2)
    for t in range(30):
        ring.extend(rows(t, 1, 2, rng))
        slot, env, weight = newest.sample(ring, torch.Generator())
        assert ring.obs[slot, env, 0].tolist() == [t, t]
        assert weight.tolist() == [1, 1]
        assert newest.sample(ring, torch.Generator())[2].tolist() == [0, 0]


def test_a_block_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"replay\.capacity"):
        Ring(SPEC, 10, 1).extend(rows(0, 50, 1, np.random.default_rng(0)))
    for bad in ((0, 1), (10, 0)):
        with pytest.raises(ValueError, match="≥ 1"):
            Ring(SPEC, bad[0], 1, window=bad[1])


def test_bytes_for_tells_what_is_allocated():
    ring = Ring(SPEC, 1000, 3, window=2)
    fields = (ring.obs, ring.action, ring.reward, ring.terminated, ring.truncated, ring.reset, ring.starts)
    assert Ring.bytes_for(SPEC, 1000, 3, 2) == sum(x.numel() * x.element_size() for x in fields)
    image = Spec((4, 4), np.dtype(np.uint8), 2)
    assert Ring(image, 10, 1).obs.dtype == torch.uint8


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="elsewhere only the peak is told")
def test_the_memory_is_there_before_the_first_step():
    before = resident_memory()
    ring = Ring(Spec((84, 84), np.dtype(np.uint8), 2), 30_000, 1)
    assert (resident_memory() - before) / 2**20 > 0.9 * ring.obs.nbytes / 2**20 > 190


def test_rows_since_restores_an_equal_ring():
    ring, rng = Ring(SPEC, 40, 2, window=2), np.random.default_rng(3)
    twin, mark = Ring(SPEC, 40, 2, window=2), torch.zeros(2, dtype=torch.int64)
    for t in range(0, 100, 10):
        ring.extend(rows(t, 10, 2, rng))
        twin.restore_rows(ring.rows_since(mark))
        mark = ring.written.clone()
    twin.load(ring.state())
    draw = [Memory(r, Uniform(500), 0.9, 2, torch.Generator().manual_seed(0)).sample() for r in (ring, twin)]
    tensors = [f for f, value in vars(draw[0]).items() if torch.is_tensor(value)]
    assert len(tensors) >= 5
    assert all(torch.equal(getattr(draw[0], f), getattr(draw[1], f)) for f in tensors)


def test_uniform_needs_a_batch():
    with pytest.raises(ValueError, match="batch_size"):
        Uniform(0)


def test_a_start_whose_row_is_overwritten_is_gone_however_full_the_fifo_is():
    """A small ring, large blocks and short episodes: live and new starts together outnumber the rows."""
    ring, rng, ticks = Ring(Spec((1,), np.dtype(np.float32), 2), 20, 1), np.random.default_rng(0), 9
    for _ in range(10):
        over = rng.random((ticks, 1)) < 0.25
        reset, no = np.zeros_like(over), np.zeros_like(over)
        reset[1:] = over[:-1]
        obs = (np.arange(ticks + 1) + int(ring.written)).astype(np.float32)[:, None, None]
        ring.extend(Rows(obs, np.zeros((ticks, 1), int), np.ones((ticks, 1), np.float32), over & ~reset, no, reset))
        live = [int(ring.starts[k % ring.rows, 0]) for k in range(int(ring.evicted[0]), int(ring.added[0]))]
        assert min(live) > int(ring.written) - ring.rows
        assert len(set(live)) == len(live)


@pytest.mark.parametrize("length", [1, 4])
def test_bits_come_as_the_bytes_they_are_kept_in(length):
    rng = np.random.default_rng(0)
    ring = Ring(Spec((3,), np.dtype(bool), 3), 40, 2, Memory.window_for(2, length, 0), stride=1)
    block = rows(0, 12, 2, rng)
    block.obs = rng.random((13, 2, 3)) < 0.5
    ring.extend(block)
    batch = Memory(ring, Uniform(64), 0.9, 2, torch.Generator().manual_seed(0), length=length).sample()
    assert batch.obs.dtype == torch.uint8
    first = torch.from_numpy(block.obs)[batch.slot, batch.env]
    assert torch.equal(batch.obs[0], first.to(torch.uint8))
    assert ring.obs.dtype == torch.bool  # a checkpoint keeps what it is
