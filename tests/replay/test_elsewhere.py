"""What a GPU runs, on a CPU: the same lines of the ring and of prioritised replay, with torch in NumPy's place."""

import numpy as np
import pytest
import torch

from dqn.ops.schedules import Constant
from dqn.replay.prioritized import Prioritized
from dqn.replay.ring import Ring
from dqn.types import Rows, Spec


def pair(stride, state_size):
    here, elsewhere = (
        Ring(Spec((2,), np.dtype(np.float32), 2), 20, 3, 2, stride=stride, state_size=state_size) for _ in range(2)
    )
    elsewhere.xp, elsewhere.here = torch, {name: getattr(elsewhere, name) for name in here.here}
    return here, elsewhere


def random_rows(rng, state_size, splits):
    ticks = rng.integers(1, 5)
    terminated, truncated = (rng.random((ticks, 3)) < 0.2 for _ in range(2))
    rows = Rows(
        rng.random((ticks + 1, 3, 2), np.float32), rng.integers(2, size=(ticks, 3)), rng.random((ticks, 3), np.float32),
        terminated, truncated, rng.random((ticks, 3)) < 0.1,
        core=rng.random((ticks, 3, state_size), np.float32) if state_size else None,
    )  # fmt: skip
    if splits:
        rows.final_obs, rows.splits = rng.random((ticks, 3, 2), np.float32), terminated | truncated
    return rows


@pytest.mark.parametrize("stride, state_size", [(None, 0), (2, 3)])
def test_torch_and_numpy_keep_the_same_ring_and_the_same_priorities(stride, state_size):
    rng = np.random.default_rng(0)
    rings = pair(stride, state_size)
    samplers = [Prioritized(4, 0.6, Constant(0.5)) for _ in rings]
    for ring, sampler in zip(rings, samplers, strict=True):
        sampler.attach(ring)
    coins = [torch.Generator().manual_seed(1) for _ in rings]
    assert samplers[0].tracked["added"].__class__ is np.ndarray and torch.is_tensor(samplers[1].tracked["added"])
    drawn, unasked = 0, []
    follow = samplers[1]._follow_unasked
    samplers[1]._follow_unasked = lambda *given: (unasked.append(given[-1]), follow(*given))
    for t in range(60):
        rows = random_rows(rng, state_size, splits=t % 2)
        td = torch.tensor(rng.standard_normal((1, 60)))
        for ring, sampler, coin in zip(rings, samplers, coins, strict=True):
            ring.extend(rows)
            if sampler.ready(ring):
                slot, env, _ = sampler.sample(ring, coin)
                errors = td[:, slot * 2 + env]
                sampler.report(slot, env, errors, torch.ones_like(errors, dtype=torch.bool))
                drawn += 1
        for name in (*rings[0].fields, *rings[0].NUMBERS):
            mine, theirs = (getattr(ring, name)[: ring.rows] for ring in rings)
            torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True)
        for mine, theirs in zip(samplers[0].state().values(), samplers[1].state().values(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=0)  # sums are added up in another order
    assert drawn > 100 and 20 < len(unasked) < 60  # after more rows than it has room for it asks
