"""The sequences of R2D2 and PQN: what is sampled is what was played, and an unroll is what was acted."""

import numpy as np
import pytest
import torch
from oracles import returns as oracle
from worlds import Counting

from dqn.acting.actor import Actor
from dqn.acting.collector import Collector
from dqn.acting.exploration import EpsilonGreedy
from dqn.envs.make import make
from dqn.networks.cores import Recurrent
from dqn.networks.heads import Expected
from dqn.networks.qnetwork import QNetwork
from dqn.networks.torsos import MLP
from dqn.ops.clock import Times
from dqn.ops.schedules import Constant
from dqn.replay.memory import Memory
from dqn.replay.ring import FIELDS, Ring
from dqn.replay.samplers import Uniform
from dqn.replay.stage import Stage
from dqn.types import Rows, Spec

GAMMA = 0.9
MODES = ["next_step", "same_step", "disabled"]


def play(mode, core="lstm", length=6, burn_in=2, n=3, stride=1, num_envs=2, ticks=150, lengths=(1, 4, 2, 7), **memory):
    """A recurrent network acts in counting worlds; the memory and every value it acted on, by (env, episode, step)."""
    Counting.PLAYED.clear()
    torch.manual_seed(0)
    envs = make("test/Counting-v0", num_envs, autoreset=mode, kwargs={"lengths": lengths, "ending": "truncated"})
    torso = MLP(envs.spec, [8])
    unit = Recurrent(8, 5, core) if core else None
    network = QNetwork(torso, Expected(5 if core else 8, 3), unit)
    acted = {}

    class Spy(Actor):
        def act(self, obs, env_steps):
            values, _ = self.network.step(torch.from_numpy(obs), self.remembered)
            for row, q in zip(obs.tolist(), values.q.tolist(), strict=True):
                acted[tuple(row)] = q
            return super().act(obs, env_steps)

    generator = torch.Generator().manual_seed(0)
    actor = Spy(network, EpsilonGreedy(Constant(1.0)), torch.device("cpu"), generator, num_envs)
    window = Memory.window_for(n, length, burn_in)
    ring = Ring(envs.spec, 10_000, num_envs, window, stride=stride, state_size=network.state_size)
    sampler = Uniform(400)
    held = Memory(ring, sampler, GAMMA, n, generator, length, burn_in, **memory)
    collector = Collector(envs, actor, Stage(envs.spec, num_envs, 7, network.state_size))
    collector.begin(40)
    clock = Times(ticks * num_envs, 10**6, 1, 1, 0, 0, 0, 0)
    with torch.no_grad():
        collector.collect(0, clock, ring.extend, {"act": 0.0, "env": 0.0})
    return network, held, acted


@pytest.mark.parametrize("core", ["lstm", "gru"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("burn_in", [0, 2])
def test_an_unroll_is_what_was_acted_with_ends_in_the_middle(mode, core, burn_in):
    network, memory, acted = play(mode, core, burn_in=burn_in)
    batch = memory.sample()
    assert batch.begins[1:].any()
    with torch.no_grad():
        values = network.values_at(batch, slice(0, memory.length))
    rows, checked = batch.obs[burn_in : burn_in + memory.length], 0
    for t in range(memory.length):
        for b in range(rows.shape[1]):
            if batch.weight[t, b] > 0:
                assert values.q[t, b].tolist() == pytest.approx(acted[tuple(rows[t, b].tolist())], abs=1e-5)
                checked += 1
    assert checked > 500


@pytest.mark.parametrize("mode", MODES)
def test_sequences_hold_what_was_played(mode):
    _, memory, _ = play(mode, burn_in=1)
    batch, played = memory.sample(), {row[:3]: row for row in Counting.PLAYED}
    trajectories = {tag: [row for row in Counting.PLAYED if row[0] == tag] for tag in (40, 41)}
    place = {row[:3]: i for tag in (40, 41) for i, row in enumerate(trajectories[tag])}
    decisions = 0
    for t in range(memory.length):
        for b in range(batch.action.shape[1]):
            here = tuple(batch.obs[memory.burn_in + t, b].tolist())
            assert (batch.weight[t, b] > 0) == (here in played)
            if here not in played:
                continue
            trajectory, i = trajectories[int(here[0])], place[here]
            columns = ([row[k] for row in trajectory] for k in (4, 5, 6))
            total, discount, k = oracle.n_step(*columns, i, 3, GAMMA)
            assert batch.action[t, b] == trajectory[i][3]
            assert batch.reward[t, b].item() == pytest.approx(total, rel=1e-5)
            assert batch.discount[t, b].item() == pytest.approx(discount, rel=1e-5)
            behind = batch.obs[memory.burn_in + int(batch.bootstrap[t, b]), b]
            assert tuple(behind.tolist()) == trajectory[i + k - 1][7:]
            assert batch.done[t, b].item() == (trajectory[i][5] or trajectory[i][6])
            decisions += 1
    assert decisions > 500


def test_burn_in_carries_no_gradient_and_a_zero_start_is_zero():
    network, memory, _ = play("same_step", burn_in=2, lengths=(50,))
    batch = memory.sample()
    batch.obs.requires_grad_()
    network.values_at(batch, slice(0, memory.length)).q.sum().backward()
    assert batch.obs.grad[:2].abs().max() == 0
    assert batch.obs.grad[2 : 2 + memory.length].abs().max() > 0
    assert batch.state.abs().max() > 0
    _, zero, _ = play("same_step", stored_state=False)
    assert zero.sample().state.abs().max() == 0


def test_a_core_must_see_the_rows_before_and_forgets_at_a_beginning():
    core = Recurrent(3, 4, "gru")
    x, state = torch.randn(5, 2, 3), torch.randn(2, 4)
    begins = torch.zeros(5, 2, dtype=torch.bool)
    begins[3, 0] = True
    with torch.no_grad():
        whole, _ = core(x, state, begins)
        tail, _ = core(x[3:], torch.zeros(2, 4))
    assert torch.allclose(whole[3:, 0], tail[:, 0])
    assert not torch.allclose(whole[3:, 1], tail[:, 1])


@pytest.mark.parametrize("stride", [1, 4])
def test_starts_are_every_stride_th_row(stride):
    _, memory, _ = play("same_step", stride=stride)
    ring = memory.ring
    rows = [int(ring.starts[k, 0]) for k in range(int(ring.added[0]))]
    assert rows == list(range(0, int(ring.written[0]) - ring.window + 1, stride))


def test_a_sequence_without_a_core_and_a_rollout_s_bootstraps():
    network, memory, _ = play("same_step", core=None, n=1, burn_in=0)
    batch = memory.sample()
    with torch.no_grad():
        following = network.values_at(batch, batch.bootstrap).q
        every = network(batch.obs).q
    assert torch.allclose(following, every[1:])  # n = 1: always the next row, which holds the true next observation


def test_wrong_cores_are_refused():
    for bad in (lambda: Recurrent(3, 4, "rnn"), lambda: Recurrent(3, 0, "gru")):
        with pytest.raises(ValueError, match="core"):
            bad()
    with pytest.raises(ValueError, match="torso=mlp"):
        Recurrent(3, 4, "gru")(torch.zeros(1, 2, dtype=torch.int64), torch.zeros(2, 4))


def test_rows_carry_what_the_core_remembered():
    _, memory, _ = play("next_step")
    ring = memory.ring
    assert ring.core[: int(ring.written[0]) - 1].abs().sum(-1).gt(0).float().mean() > 0.4
    assert np.isfinite(ring.core.numpy()).all()


@pytest.mark.parametrize("num_envs", [1, 64])
def test_however_small_a_ring_is_there_is_always_a_start(num_envs):
    """With fewer rows than the stride the old start would go before the next comes."""
    spec, window, stride = Spec((1,), np.dtype(np.float32), 2), 3, 40
    ring, begun = Ring(spec, 20 * num_envs, num_envs, window, stride=stride), False
    for _ in range(100):
        flags = np.zeros((5, num_envs), bool)
        obs = np.zeros((6, num_envs, 1), np.float32)
        ring.extend(Rows(obs, flags.astype(np.int64), flags.astype(np.float32), flags, flags, flags))
        begun = begun or len(ring) > 0
        assert not begun or bool((ring.count > 0).all())
    assert begun
    fields = [getattr(ring, f) for f in (*FIELDS, "starts")]
    assert Ring.bytes_for(spec, 20 * num_envs, num_envs, window, stride=stride) == sum(x.nbytes for x in fields)
