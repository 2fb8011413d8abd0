import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import prioritized as oracle
from torch.utils._python_dispatch import TorchDispatchMode

from dqn.ops.schedules import Constant, Linear
from dqn.replay import priorities
from dqn.replay.priorities import SumTree
from dqn.replay.prioritized import Prioritized
from dqn.replay.ring import Ring
from dqn.replay.samplers import Newest, Uniform
from dqn.types import Rows, Spec

SPEC = Spec((1,), np.dtype(np.float32), 3)
CAPACITIES = [1, 2, 3, 7, 1000, 1024]
TOPS = [1, 40, priorities.TOP]  # of trees with one node, with some and with all that there are at their top


def block(ticks, num_envs, rng, done=0.0, splits=False):
    """Rows whose episodes end with probability `done`, with autoreset NEXT_STEP, or SAME_STEP if `splits`."""
    obs = rng.standard_normal((ticks + 1, num_envs, 1)).astype(np.float32)
    over = rng.random((ticks, num_envs)) < done
    no = np.zeros((ticks, num_envs), bool)
    rows = Rows(obs, no.astype(int), np.ones((ticks, num_envs), np.float32), over, no.copy(), no.copy())
    if splits:
        rows.final_obs, rows.splits = obs[1:] + 1, over
    else:
        rows.reset[1:] = over[:-1]
        rows.terminated &= ~rows.reset
    return rows


def attached(ring, batch_size=8, exponent=0.6, importance=0.5, **numbers):
    sampler = Prioritized(batch_size, exponent, Constant(importance), **numbers)
    sampler.attach(ring)
    return sampler


def filled(capacity, num_envs=1, ticks=None, window=1, **numbers):
    ring, rng = Ring(SPEC, capacity, num_envs, window), np.random.default_rng(0)
    ticks = capacity // num_envs + window - 1 if ticks is None else ticks
    for _ in range(ticks):
        ring.extend(block(1, num_envs, rng))
    sampler = attached(ring, **numbers)
    assert sampler.ready(ring)
    return ring, sampler


def live(ring):
    """(row, env) of every legal start, by a loop."""
    return [
        (int(ring.starts[k % ring.rows, e]), e)
        for e in range(ring.num_envs)
        for k in range(int(ring.evicted[e]), int(ring.added[e]))
    ]


def ones(batch):
    return torch.ones(1, batch, dtype=torch.bool)


# The tree.


def planted(leaves, top):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(priorities, "TOP", top)
        return SumTree(leaves)


@pytest.mark.parametrize("top", TOPS)
@pytest.mark.parametrize("capacity", CAPACITIES)
@pytest.mark.parametrize("zeros", [False, True])
def test_the_same_leaf_for_the_same_mass_at_every_border(capacity, zeros, top):
    rng = np.random.default_rng(capacity)
    values = rng.integers(0 if zeros else 1, 4, capacity).astype(float)  # whole numbers: every sum is exact
    values[rng.integers(capacity)] = 2.0
    tree, naive = planted(capacity, top), oracle.Priorities(capacity)
    tree.set(torch.arange(capacity), torch.tensor(values))
    naive.set(range(capacity), values.tolist())
    assert tree.total == values.sum()
    borders = np.unique(np.concatenate([[0.0], values.cumsum()]))
    masses = np.concatenate([borders, borders[:-1] + 0.5, np.nextafter(borders[1:], 0), [values.sum() + 1]])
    found = tree.find(torch.tensor(masses)).tolist()
    assert found == [naive.find(m) for m in masses]
    assert (tree.values(torch.tensor(found)) > 0).all()


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from([*CAPACITIES, 32, 33, 64, 65, 1025, 4096, 4097]),
    st.lists(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 5)), min_size=1, max_size=9), max_size=12),
    st.sampled_from([torch.tensor, np.array]),
    st.sampled_from(TOPS),
)
def test_any_sequence_of_set_and_find_is_the_lists(capacity, calls, kind, top):
    tree, naive = planted(capacity, top), oracle.Priorities(capacity)
    for call in calls:
        where, values = [i % capacity for i, _ in call], [float(v) for _, v in call]
        tree.set(kind(where), kind(values))
        naive.set(where, values)
        assert tree.total == sum(naive.items)
        assert tree.values(torch.arange(capacity)).tolist() == naive.items
        if sum(naive.items) > 0:
            masses = np.linspace(0, sum(naive.items), 7)
            assert tree.find(torch.tensor(masses)).tolist() == [naive.find(m) for m in masses]


@pytest.mark.parametrize("top", TOPS)
@pytest.mark.parametrize("capacity", [3, 130, 5000])
def test_no_leaf_of_priority_zero_whatever_rounding_does(capacity, top):
    rng = np.random.default_rng(0)
    for _ in range(50):
        values = torch.tensor(10.0 ** rng.uniform(-9, 9, capacity) * (rng.random(capacity) < 0.3))
        values[rng.integers(capacity - 1)] = 0.1
        values[-1] = 0.0
        tree = planted(capacity, top)
        tree.set(torch.arange(capacity), values)
        total = tree.total
        upto = values.cumsum(0)
        masses = torch.cat([upto, upto.nextafter(torch.zeros(())), total[None], total[None] * (1 + 1e-9)])
        assert (tree.values(tree.find(masses)) > 0).all()


@pytest.mark.parametrize("top", TOPS)
@pytest.mark.parametrize("capacity", [3, 130, 5000])
@pytest.mark.parametrize("value", [0.0, np.inf, np.nan])
def test_a_tree_with_no_finite_mass_still_names_leaves_that_there_are(capacity, value, top):
    """A run that diverges ends where its loss is looked at, on a GPU some draws later."""
    tree = planted(capacity, top)
    tree.set(torch.arange(capacity), torch.ones(capacity, dtype=torch.float64))
    tree.set(torch.arange(capacity) if value == 0 else torch.tensor([capacity - 1]), value)
    found = tree.find(torch.rand(100, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * tree.total)
    assert ((found >= 0) & (found < capacity)).all()


@pytest.mark.parametrize("top", TOPS)
def test_changing_leaves_for_ever_does_not_drift(top):
    tree, rng = planted(1000, top), np.random.default_rng(0)
    for _ in range(2000):
        tree.set(torch.tensor(rng.integers(0, 1000, 32)), torch.tensor(10.0 ** rng.uniform(-9, 9, 32)))
    tree.set(torch.arange(0, 1000, 2), torch.zeros(500))
    tree.set(torch.arange(1, 1000, 2), torch.full((500,), 1e-9))
    anew = planted(1000, top)
    anew.set(torch.arange(1, 1000, 2), torch.full((500,), 1e-9))
    assert torch.equal(tree.state(), anew.state())


def test_a_tree_needs_a_leaf():
    with pytest.raises(ValueError, match="at least one leaf"):
        SumTree(0)


# The sampler.


@pytest.mark.parametrize("capacity", CAPACITIES)
def test_draws_and_weights_are_the_oracles(capacity):
    ring, sampler = filled(capacity, exponent=0.6, importance=0.4)
    slot, env = torch.arange(capacity), torch.zeros(capacity, dtype=torch.int64)
    td = torch.rand(1, capacity, generator=torch.Generator().manual_seed(0)) * 3 - 1
    sampler.report(slot, env, td, ones(capacity))
    got, where, weight = sampler.sample(ring, torch.Generator().manual_seed(5))
    p = [oracle.priority([float(d)], [True], 0.9, 1e-6) for d in td[0]]
    probabilities = oracle.probabilities(p, 0.6)
    naive = oracle.Priorities(capacity)
    naive.set(range(capacity), probabilities)
    draws = torch.rand(8, dtype=torch.float64, generator=torch.Generator().manual_seed(5)).tolist()
    assert got.tolist() == [naive.find((i + u) / 8) for i, u in enumerate(draws)]
    assert (where == 0).all()
    assert weight.max() == 1
    assert weight.dtype == torch.float32
    torch.testing.assert_close(weight, torch.tensor(oracle.weights(probabilities, got.tolist(), 0.4)))


@pytest.mark.parametrize(("exponent", "num_envs"), [(0.0, 1), (0.6, 1), (1.0, 3)])
def test_the_empirical_distribution_is_p_to_the_exponent(exponent, num_envs):
    draws = 100_000
    ring, sampler = filled(60, num_envs, ticks=90, batch_size=draws, exponent=exponent, importance=1.0)
    keys = live(ring)
    slot, env = (torch.tensor(x) for x in zip(*[(row % ring.rows, e) for row, e in keys], strict=True))
    td = torch.linspace(0.1, 2, len(keys))[torch.randperm(len(keys), generator=torch.Generator().manual_seed(2))]
    sampler.report(slot, env, td[None], ones(len(keys)))
    expected = draws * torch.tensor(oracle.probabilities(((td.double() + 1e-6).tolist()), exponent))
    got_slot, got_env, weight = sampler.sample(ring, torch.Generator().manual_seed(1))
    flat = torch.bincount(got_slot * num_envs + got_env, minlength=ring.rows * num_envs)
    counts = flat[slot * num_envs + env]
    assert counts.sum() == draws
    assert ((counts - expected).abs() <= 2).all()  # stratified: exact but for the two ends of each interval
    mass = torch.rand(draws, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * sampler.tree.total
    leaf = sampler.tree.find(mass)  # independent draws
    loose = torch.bincount(leaf, minlength=ring.rows * num_envs)[slot * num_envs + env]
    chi2, df = ((loose - expected) ** 2 / expected).sum().item(), len(keys) - 1
    assert abs(chi2 - df) < 5 * (2 * df) ** 0.5
    if exponent == 0:
        assert (weight == 1).all()


def test_an_importance_exponent_of_zero_weighs_nothing_and_the_schedule_is_followed():
    ring = Ring(SPEC, 50, 1)
    ring.extend(block(20, 1, np.random.default_rng(0)))
    sampler = Prioritized(16, 0.6, Linear(0.0, 1.0, 100))
    sampler.attach(ring)
    sampler.anneal(0)
    slot, env, _ = sampler.sample(ring, torch.Generator().manual_seed(0))
    sampler.report(slot, env, torch.linspace(0.1, 5, 16)[None], ones(16))
    exponent, storage = sampler.exponent, sampler.exponent.data_ptr()
    assert (sampler.sample(ring, torch.Generator())[2] == 1).all()
    sampler.anneal(50)
    slot, _, weight = sampler.sample(ring, torch.Generator())
    value = sampler.tree.values(slot)
    torch.testing.assert_close(weight.double(), (value.min() / value) ** 0.5, rtol=1e-6, atol=0)
    assert exponent is sampler.exponent  # a captured graph reads this very number
    assert exponent.data_ptr() == storage
    assert exponent.shape == ()


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 4), st.integers(1, 3), st.sampled_from([1, 2, 5, 40]), st.booleans(),
    st.lists(st.lists(st.integers(1, 4), max_size=12), min_size=1, max_size=12), st.integers(0, 99),
)  # fmt: skip
def test_the_tree_holds_the_rings_starts_whatever_came_between(num_envs, window, kept, splits, phases, seed):
    """Wrap-around, short episodes, more rows between two draws than the FIFO holds."""
    ring, rng = Ring(SPEC, kept * num_envs, num_envs, window), np.random.default_rng(seed)
    sampler, follower = attached(ring, batch_size=6, exponent=0.7), oracle.Following()
    coins = torch.Generator().manual_seed(seed)
    for phase in phases:
        for ticks in phase:
            for _ in range(ticks):
                ring.extend(block(1, num_envs, rng, done=0.3, splits=splits))
        follower.follow(live(ring))
        assert sampler.ready(ring) == bool(follower.powers)
        sampler.anneal(0)
        leaves = sampler.tree.values(torch.arange(ring.rows * num_envs)).tolist()
        assert leaves == follower.leaves(ring.rows, num_envs)
        if follower.powers:
            slot, env, _ = sampler.sample(ring, coins)
            keys = {(row % ring.rows, e): (row, e) for row, e in follower.powers}
            drawn = [keys[s, e] for s, e in zip(slot.tolist(), env.tolist(), strict=True)]
            errors = torch.tensor(rng.standard_normal((1, ring.rows * num_envs)))  # a start drawn twice errs as much
            sampler.report(slot, env, errors[:, slot * num_envs + env], ones(6))
            given_ = sampler.tree.values(slot * num_envs + env).tolist()
            follower.report(drawn, given_)
            assert float(sampler.largest) == follower.largest


def test_new_items_get_the_largest_priority_so_far():
    ring, sampler = filled(40, ticks=10, exponent=0.5)
    at = torch.arange(10)
    assert sampler.tree.values(at).tolist() == [1.0] * 10
    zero = torch.zeros_like(at)
    sampler.report(at, zero, torch.full((1, 10), 8.0), ones(10))
    sampler.report(at, zero, torch.full((1, 10), 0.5), ones(10))  # the largest is remembered
    ring.extend(block(1, 1, np.random.default_rng(1)))
    sampler.anneal(0)
    assert sampler.tree.values(torch.tensor([10])).item() == pytest.approx(8.000001**0.5, rel=1e-12)
    assert sampler.tree.values(at).tolist() == pytest.approx([0.500001**0.5] * 10, rel=1e-12)


def test_the_priority_of_a_sequence_mixes_its_largest_and_its_mean_error():
    _, sampler = filled(40, ticks=10, exponent=0.8, max_mix=0.7, floor=0.01)
    td = torch.tensor([[1.0, 1.5], [-3.0, 0.5], [2.0, 99.0]])
    valid = torch.tensor([[True, True], [True, True], [True, False]])
    sampler.report(torch.tensor([2, 5]), torch.tensor([0, 0]), td, valid)
    want = [oracle.priority(td[:, b].tolist(), valid[:, b].tolist(), 0.7, 0.01) ** 0.8 for b in range(2)]
    assert sampler.tree.values(torch.tensor([2, 5])).tolist() == pytest.approx(want, rel=1e-12)


def test_saved_and_loaded_the_same_starts_are_drawn():
    ring, sampler = filled(50, 3, ticks=40, window=2, exponent=0.9)
    rng, coins = np.random.default_rng(3), torch.Generator().manual_seed(0)

    def step(ring, sampler, rng, coins):
        ring.extend(block(5, 3, rng, done=0.2))
        sampler.anneal(0)
        drawn = sampler.sample(ring, coins)
        td = torch.tensor(rng.standard_normal((1, 8)))
        sampler.report(*drawn[:2], td, ones(8))
        return drawn

    for _ in range(20):
        step(ring, sampler, rng, coins)
    ring.extend(block(3, 3, rng, done=0.2))  # what is in the ring and not yet in the tree is not lost
    twin = Ring(SPEC, 50, 3, 2)
    twin.restore_rows(ring.rows_since(torch.zeros(3, dtype=torch.int64)))
    twin.load({k: v.clone() for k, v in ring.state().items()})
    other = attached(twin, exponent=0.9)
    other.load({k: v.clone() for k, v in sampler.state().items()})
    rng2, coins2 = np.random.default_rng(9), torch.Generator()
    coins2.set_state(coins.get_state())
    rng = np.random.default_rng(9)
    for _ in range(20):
        one, two = step(ring, sampler, rng, coins), step(twin, other, rng2, coins2)
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
        assert torch.equal(sampler.tree.state(), other.tree.state())


class NoWait(TorchDispatchMode):
    """Refuses what would make the host wait for a device."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function.overloadpacket.__name__ not in ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero")
        return function(*args, **(kwargs or {}))


def test_a_draw_and_its_report_never_wait_for_the_device():
    ring, sampler = filled(3000, 2)
    generator, td = torch.Generator().manual_seed(0), torch.ones(1, 8)
    places = [level.data_ptr() for level in sampler.tree.levels]
    with NoWait():
        slot, env, _ = sampler.sample(ring, generator)
        sampler.report(slot, env, td, td > 0)
    assert places == [level.data_ptr() for level in sampler.tree.levels]  # a captured graph writes to these very places
    with pytest.raises(AssertionError), NoWait():
        sampler.ready(ring)


def test_an_environment_whose_starts_all_went_has_no_mass_left():
    ring, sampler = filled(8, 2)
    rows = block(4, 2, np.random.default_rng(0))
    rows.reset[:, 0] = True
    for _ in range(10):
        ring.extend(rows)
    assert ring.count.tolist()[0] == 0
    assert sampler.ready(ring)
    assert (sampler.sample(ring, torch.Generator())[1] == 1).all()
    assert sampler.tree.total == len(ring)


def test_what_cannot_be_meant_is_refused():
    for bad in (
        {"batch_size": 0}, {"priority_exponent": -0.1}, {"importance_exponent": 0.4}, {"max_mix": 1.1}, {"floor": 0.0},
    ):  # fmt: skip
        numbers = {"batch_size": 8, "priority_exponent": 0.6, "importance_exponent": Constant(0.4), **bad}
        with pytest.raises(ValueError, match=next(iter(bad))):
            Prioritized(**numbers)
    _, sampler = filled(10)
    with pytest.raises(ValueError, match=r"\[T, B\]"):
        sampler.report(torch.arange(3), torch.zeros(3, dtype=torch.int64), torch.zeros(3), torch.ones(3))


# The other samplers answer the same questions.


def test_uniform_is_ready_when_there_is_a_start():
    ring, sampler = Ring(SPEC, 10, 2, window=3), Uniform(4)
    sampler.attach(ring)
    ring.extend(block(2, 2, np.random.default_rng(0)))
    assert not sampler.ready(ring)
    ring.extend(block(1, 2, np.random.default_rng(0)))
    assert sampler.ready(ring)
    sampler.anneal(3)
    sampler.report(torch.zeros(4), torch.zeros(4), torch.zeros(1, 4), ones(4))
    assert sampler.state() == {}


def test_a_rollout_covers_every_row_once():
    ring, rng, newest = Ring(SPEC, 64, 2, window=4), np.random.default_rng(0), Newest(2, length=4)
    newest.attach(ring)
    assert not newest.ready(ring)
    covered = []
    for ticks in (4, 4, 6, 4, 1, 4, 4):
        ring.extend(block(ticks, 2, rng))
        assert newest.ready(ring)
        slot, env, weight = newest.sample(ring, torch.Generator())
        assert env.tolist() == [0, 1]
        assert weight.shape == (4, 2)
        end = int(ring.written[0])
        assert slot.tolist() == [(end - 4) % ring.rows] * 2
        assert weight[:, 0].tolist() == [float(end - 4 + t not in covered) for t in range(4)]
        assert torch.equal(weight[:, 0], weight[:, 1])
        covered += [end - 4 + t for t in range(4) if end - 4 + t not in covered]
    assert newest.state()["used"].tolist() == [end, end]
    again = Newest(2, length=4)
    again.attach(ring)
    again.load(newest.state())
    assert not again.sample(ring, torch.Generator())[2].any()


def test_a_rollout_waits_for_every_environment_and_has_a_length():
    ring, newest = Ring(SPEC, 20, 2), Newest(2)
    newest.attach(ring)
    rows = block(1, 2, np.random.default_rng(0))
    rows.reset[0, 1] = True
    ring.extend(rows)
    assert len(ring) == 1
    assert not newest.ready(ring)
    assert newest.sample(ring, torch.Generator())[2].tolist() == [1, 0]
    ring.extend(block(1, 2, np.random.default_rng(0)))
    assert newest.ready(ring)
    assert newest.sample(ring, torch.Generator())[2].tolist() == [1, 1]
    with pytest.raises(ValueError, match="length"):
        Newest(2, length=0)
