"""What is sampled is what was played, wherever an episode ends."""

from collections import Counter

import numpy as np
import pytest
import torch
from oracles import returns as oracle
from worlds import Counting

from dqn.envs.make import make
from dqn.replay.memory import Memory
from dqn.replay.ring import Ring
from dqn.replay.samplers import Sampler
from dqn.replay.stage import Stage

GAMMA = 0.9


class EveryStart(Sampler):
    """Samples the whole FIFO, in order: what uniform sampling draws from."""

    def sample(self, ring, generator):
        pairs = [
            (int(ring.starts[k % ring.rows, e]) % ring.rows, e)
            for e in range(ring.num_envs)
            for k in range(int(ring.evicted[e]), int(ring.added[e]))
        ]
        slot, env = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T
        return slot, env, torch.ones(len(pairs))


def play(mode, num_envs, n, lengths, ending, ticks=120, capacity=10_000, blocks=(1, 5, 2, 9)):
    """Play random actions; returns the memory, and every transition that was really played."""
    Counting.PLAYED.clear()
    envs = make("test/Counting-v0", num_envs, autoreset=mode, kwargs={"lengths": lengths, "ending": ending})
    memory = Memory(Ring(envs.spec, capacity, num_envs, window=n), EveryStart(), GAMMA, n, torch.Generator())
    stage, rng, obs = Stage(envs.spec, num_envs, max(blocks)), np.random.default_rng(0), envs.reset(seed=40)
    for tick in range(ticks):
        action = rng.integers(3, size=num_envs)
        stage.record_decision(obs, action)
        step = envs.step(action)
        stage.record_step(step)
        obs = step.obs
        if stage.used >= blocks[tick % len(blocks)]:
            memory.ring.extend(stage.take(obs))
    memory.ring.extend(stage.take(obs))
    return memory, list(Counting.PLAYED)


CASES = [
    pytest.param(mode, envs, n, lengths, ending, id=f"{mode}-E{envs}-n{n}-{'.'.join(map(str, lengths))}-{ending}")
    for mode in ("next_step", "same_step", "disabled")
    for envs in (1, 3)
    for n in (1, 3)
    for lengths in ((1,), (3,), (1, 4, 2, 7))
    for ending in ("terminated", "truncated", "both")
]


@pytest.mark.parametrize(("mode", "num_envs", "n", "lengths", "ending"), CASES)
def test_sampled_is_played(mode, num_envs, n, lengths, ending):
    memory, played = play(mode, num_envs, n, lengths, ending)
    got = memory.sample()
    assert not got.obs.isnan().any()
    assert not got.reward.isnan().any()
    # every window, recomputed from the trajectories of each environment
    want = Counter()
    for tag in range(40, 40 + num_envs):
        trajectory = [row for row in played if row[0] == tag]
        rewards, terminated, truncated = ([row[i] for row in trajectory] for i in (4, 5, 6))
        for i in range(len(trajectory)):
            open_end = not any(terminated[i : i + n] + truncated[i : i + n])
            if i + n > len(trajectory) and open_end:
                continue  # its bootstrap is still to come
            total, discount, k = oracle.n_step(rewards, terminated, truncated, i, n, GAMMA)
            s, a, s_next = trajectory[i][:3], trajectory[i][3], trajectory[i + k - 1][7:]
            assert s_next[:2] == s[:2]  # the same environment and episode …
            assert s_next[2] == s[2] + k  # … exactly k steps later
            want[(*s, a, *s_next, round(total, 4), round(discount, 4))] += 1
    rows = zip(got.obs[0].tolist(), got.action[0].tolist(), got.obs[1].tolist(), got.reward[0].tolist(),
               got.discount[0].tolist(), strict=True)  # fmt: skip
    have = Counter((*s, a, *s_next, round(r, 4), round(d, 4)) for s, a, s_next, r, d in rows)
    assert not have - want  # nothing added
    # nothing lost, but for windows at the very end that wait for rows after an episode's end
    assert sum((want - have).values()) <= num_envs * (n - 1)


@pytest.mark.parametrize("mode", ["next_step", "same_step", "disabled"])
@pytest.mark.parametrize("n", [1, 3])
def test_after_many_wraps_only_whole_recent_windows_are_left(mode, n):
    memory, played = play(mode, 2, n, (1, 4, 2, 7), "both", ticks=400, capacity=60)
    got = memory.sample()
    whole = {(*row[:3], row[3]) for row in played}
    assert {(*s, a) for s, a in zip(map(tuple, got.obs[0].tolist()), got.action[0].tolist(), strict=True)} <= {
        (*map(float, key[:3]), key[3]) for key in whole
    }
    assert (got.obs[1, :, 1] == got.obs[0, :, 1]).all()
    assert (got.obs[1, :, 2] - got.obs[0, :, 2]).min() >= 1
    newest = max(row[1] for row in played)
    assert got.obs[0, :, 1].min() >= newest - 60  # old episodes are gone


def test_a_cut_is_a_truncation_of_the_running_episodes_and_nothing_else():
    memory, _ = play("next_step", 2, 1, (7,), "terminated", ticks=10)
    ring = memory.ring
    before = ring.truncated.clone()
    ring.cut()
    assert (ring.truncated ^ before).sum() == 2
    ring.cut()
    assert (ring.truncated ^ before).sum() == 2


@pytest.mark.parametrize("num_envs", [1, 8])
def test_capacity_counts_transitions_whatever_num_envs_is(num_envs):
    memory, _ = play("next_step", num_envs, 1, (50,), "truncated", ticks=900 // num_envs + 60, capacity=400)
    assert len(memory.ring) == 400
    assert memory.ring.fill() == 1.0
