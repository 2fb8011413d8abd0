import builtins

import numpy as np
import pytest
import torch

from dqn.replay import dataset
from dqn.replay.memory import Memory
from dqn.replay.ring import Ring
from dqn.replay.samplers import Uniform
from dqn.types import Rows, Spec

SPEC = Spec((2,), np.dtype(np.float32), 3)


def ring_of(blocks, spec=SPEC):
    """A ring that holds them all, as the trainer would make it."""
    blocks = list(blocks)
    ring = Ring(spec, dataset.count(blocks), 1)
    for block in blocks:
        ring.extend(block)
    return ring


def transitions(ring):
    """(s, a, r, terminated, truncated, s′) of every legal start, by a loop."""
    found = []
    for k in range(int(ring.evicted[0]), int(ring.added[0])):
        slot = int(ring.starts[k % ring.rows, 0]) % ring.rows
        obs = [ring.obs[i % ring.rows, 0].tolist() for i in (slot, slot + 1)]
        numbers = [x[slot, 0].item() for x in (ring.action, ring.reward, ring.terminated, ring.truncated)]
        found.append((obs[0], *numbers, obs[1]))
    return found


# Minari.


@pytest.fixture
def minari(monkeypatch, tmp_path):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    pytest.importorskip("h5py")
    return pytest.importorskip("minari")


def episodes(lengths, space, actions, rng, ends=None):
    """As plain lists: observations T + 1, the rest T; the last step ends the way `ends` says."""
    made = []
    for number, ticks in enumerate(lengths):
        way = (ends or ["terminated"] * len(lengths))[number]
        made.append({
            "observations": np.array([space.sample() for _ in range(ticks + 1)], space.dtype),
            "actions": rng.integers(int(actions.start), int(actions.start + actions.n), ticks),
            "rewards": rng.integers(-5, 6, ticks).astype(float),
            "terminations": np.array([way == "terminated" and t == ticks - 1 for t in range(ticks)]),
            "truncations": np.array([way == "truncated" and t == ticks - 1 for t in range(ticks)]),
        })  # fmt: skip
    return made


def store(minari, dataset_id, made, space, actions):
    from minari.data_collector import EpisodeBuffer

    minari.create_dataset_from_buffers(
        dataset_id, [EpisodeBuffer(id=i, **episode) for i, episode in enumerate(made)],
        observation_space=space, action_space=actions,
    )  # fmt: skip


def wanted(made, first_action=0, first_state=0):
    found = []
    for episode in made:
        ticks = len(episode["actions"])
        for t in range(ticks):
            terminated, truncated = bool(episode["terminations"][t]), bool(episode["truncations"][t])
            truncated |= t == ticks - 1 and not terminated
            here, there = ((episode["observations"][i].astype(np.float64) - first_state).tolist() for i in (t, t + 1))
            action = int(episode["actions"][t]) - first_action
            found.append((here, action, float(episode["rewards"][t]), terminated, truncated, there))
    return found


def test_a_minari_dataset_becomes_the_stream_it_was(minari):
    from gymnasium.spaces import Box, Discrete

    space, actions, rng = Box(-1, 1, (2,), np.float64, seed=0), Discrete(3, start=-1), np.random.default_rng(0)
    lengths = [1, 2, 5, 1, 3000, 7]
    ends = ["terminated", "truncated", "terminated", "none", "none", "truncated"]
    made = episodes(lengths, space, actions, rng, ends)
    store(minari, "test/box-v0", made, space, actions)
    ring = ring_of(dataset.minari_rows("test/box-v0", SPEC))
    assert dataset.count(dataset.minari_rows("test/box-v0")) == sum(lengths) + len(lengths)
    assert len(ring) == sum(lengths)
    assert int(ring.reset[: int(ring.written)].sum()) == len(lengths)
    for got, want in zip(transitions(ring), wanted(made, first_action=-1), strict=True):
        assert got[1:5] == want[1:5]
        assert got[0] == pytest.approx(want[0])
        assert got[5] == pytest.approx(want[5])
    batch = Memory(ring, Uniform(5000), 0.9, 1, torch.Generator().manual_seed(0)).sample()
    assert batch.obs.isfinite().all()
    assert int(batch.action.min()) == 0


def test_a_minari_dataset_of_state_numbers_counts_from_zero(minari):
    from gymnasium.spaces import Discrete

    space, actions, rng = Discrete(6, start=2, seed=0), Discrete(2), np.random.default_rng(0)
    made = episodes([4, 1, 3], space, actions, rng)
    store(minari, "test/states-v0", made, space, actions)
    spec = Spec((), np.dtype(np.int64), 2, states=6)
    assert transitions(ring_of(dataset.minari_rows("test/states-v0", spec), spec)) == wanted(made, first_state=2)


def test_pixels_stay_bytes(minari):
    from gymnasium.spaces import Box, Discrete

    space, actions, rng = Box(0, 255, (3, 4), np.uint8, seed=0), Discrete(2), np.random.default_rng(0)
    made = episodes([4, 2], space, actions, rng)
    store(minari, "test/pixels-v0", made, space, actions)
    spec = Spec((3, 4), np.dtype(np.uint8), 2)
    assert transitions(ring_of(dataset.minari_rows("test/pixels-v0", spec), spec)) == wanted(made)


def test_a_dataset_that_does_not_fit_is_refused_in_one_sentence(minari):
    from gymnasium.spaces import Box, Dict, Discrete

    rng, box = np.random.default_rng(0), Box(-1, 1, (2,), seed=0)
    store(minari, "test/fits-v0", episodes([2], box, Discrete(3), rng), box, Discrete(3))
    mask = (("observation", SPEC), ("action_mask", Spec((3,), np.dtype(bool), 3)))
    for other, says in (
        (Spec((3,), np.dtype(np.float32), 3), r"\[2\] of float and 3 actions, the environment observations \[3\]"),
        (Spec((2,), np.dtype(np.uint8), 3), "of uint8"),
        (Spec((2,), np.dtype(np.float32), 4), "4 actions"),
        (Spec((), np.dtype(np.int64), 3, states=6), "6 states"),
        (Spec((16,), np.dtype(np.uint8), 3, parts=mask), "action_mask packed into one"),
    ):
        with pytest.raises(ValueError, match=says):
            next(dataset.minari_rows("test/fits-v0", other))
    space = Dict({"a": Box(-1, 1, (2,), seed=0)})
    one = {**episodes([2], box, Discrete(3), rng)[0], "observations": {"a": np.zeros((3, 2), np.float32)}}
    store(minari, "test/dict-v0", [one], space, Discrete(3))
    with pytest.raises(ValueError, match="are Dict: choose"):
        next(dataset.minari_rows("test/dict-v0"))
    one = {**episodes([2], box, Discrete(3), rng)[0], "actions": np.zeros((2, 1), np.float32)}
    store(minari, "test/continuous-v0", [one], box, Box(-1, 1, (1,)))
    with pytest.raises(ValueError, match="Discrete actions"):
        next(dataset.minari_rows("test/continuous-v0"))
    with pytest.raises(ValueError, match="minari download test/nowhere-v0"):
        next(dataset.minari_rows("test/nowhere-v0"))


def test_without_minari_the_sentence_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "minari":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r'pip install "dqn-family\[offline\]"'):
        next(dataset.minari_rows("test/box-v0"))


# Another run.


def stream(ticks, num_envs, rng, splits):
    """Episodes of one to a few steps; obs tells (tick, environment), so that every transition is known."""
    time = np.arange(ticks + 1)[:, None] + np.zeros(num_envs)
    obs = np.stack([time, time * 0 + np.arange(num_envs)], -1).astype(np.float32)
    over, no = rng.random((ticks, num_envs)) < 0.25, np.zeros((ticks, num_envs), bool)
    terminated = over & (rng.random((ticks, num_envs)) < 0.5)
    action, reward = rng.integers(0, 3, (ticks, num_envs)), rng.standard_normal((ticks, num_envs)).astype(np.float32)
    rows = Rows(obs, action, reward, terminated, over & ~terminated, no.copy())
    if splits:
        rows.final_obs, rows.splits = obs[1:] + 0.5, over
        return rows
    for t in range(1, ticks):
        rows.reset[t] = (rows.terminated | rows.truncated)[t - 1]
        rows.terminated[t] &= ~rows.reset[t]
        rows.truncated[t] &= ~rows.reset[t]
    return rows


def cut(rows, low, high):
    """Ticks low … high − 1 of a stream."""
    part = {f: getattr(rows, f)[low:high] for f in dataset.FIELDS[1:]}
    more = {} if rows.splits is None else {"final_obs": rows.final_obs[low:high], "splits": rows.splits[low:high]}
    return Rows(rows.obs[low : high + 1], **part, **more)


def known(rows, env):
    """The transitions of one environment's stream, by a loop."""
    found = []
    for t in range(len(rows.action)):
        if rows.reset[t, env]:
            continue
        ends = bool(rows.terminated[t, env]), bool(rows.truncated[t, env])
        split = rows.splits is not None and rows.splits[t, env]
        there = rows.final_obs[t, env] if split else rows.obs[t + 1, env]
        found.append((rows.obs[t, env].tolist(), int(rows.action[t, env]), float(rows.reward[t, env]), *ends,
                      there.tolist()))  # fmt: skip
    return found


@pytest.mark.parametrize("splits", [False, True])
@pytest.mark.parametrize(("capacity", "ticks"), [(1000, 40), (1000, 1), (60, 90), (60, 91), (60, 92), (60, 93)])
@pytest.mark.parametrize("num_envs", [1, 3])
def test_another_runs_memory_becomes_one_stream(splits, capacity, ticks, num_envs):
    rows = stream(ticks, num_envs, np.random.default_rng(ticks), splits)
    ring, mark, chunks = Ring(SPEC, capacity, num_envs), torch.zeros(num_envs, dtype=torch.int64), []
    for low in range(0, ticks, 2):
        ring.extend(cut(rows, low, min(low + 2, ticks)))
        chunks.append({k: v.clone() for k, v in ring.rows_since(mark).items()})
        mark = ring.written.clone()
    got = transitions(ring_of(dataset.run_rows(chunks, ring.written, ring.rows)))
    by_env = [[g for g in got if g[0][1] == e] for e in range(num_envs)]
    assert [g for env in by_env for g in env] == got  # one environment after the other
    for env in range(num_envs):
        want = known(rows, env)
        last = want[-1]
        want[-1] = (*last[:4], last[4] or not last[3], last[5])  # nothing follows: cut there
        kept = int(ring.count[env])
        assert len(by_env[env]) >= kept
        assert by_env[env] == want[-len(by_env[env]) :]


def test_a_long_column_comes_in_blocks_and_loses_nothing():
    rows = stream(5000, 1, np.random.default_rng(0), splits=False)
    ring = Ring(SPEC, 5000, 1)
    ring.extend(rows)
    blocks = list(dataset.run_rows([ring.rows_since(torch.zeros(1, dtype=torch.int64))], ring.written, ring.rows))
    assert max(len(b.action) for b in blocks) == dataset.BLOCK
    want = known(rows, 0)
    want[-1] = (*want[-1][:4], want[-1][4] or not want[-1][3], want[-1][5])
    assert transitions(ring_of(blocks)) == want


def test_rows_that_no_chunk_holds_are_left_out():
    rows = stream(40, 1, np.random.default_rng(1), splits=False)
    ring, mark = Ring(SPEC, 1000, 1), torch.tensor([20])
    ring.extend(rows)
    got = transitions(ring_of(dataset.run_rows([ring.rows_since(mark)], ring.written, ring.rows)))
    assert got[:-1] == [t for t in known(rows, 0) if t[0][0] >= 19][:-1]
    assert got[0][0][0] in (19, 20)


def test_a_run_that_never_stepped_has_no_memory():
    with pytest.raises(ValueError, match="no replay rows"):
        next(dataset.run_rows([], torch.zeros(1, dtype=torch.int64), 10))
