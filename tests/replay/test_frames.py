"""Stacks of frames kept as single frames: what is sampled is what the environment showed, bit for bit."""

import numpy as np
import pytest
import torch
from conftest import world

from dqn.errors import UsageError
from dqn.replay.frames import frame, whole
from dqn.replay.memory import Memory
from dqn.replay.ring import Ring
from dqn.types import Rows, Spec

STACK, FRAME = 3, (2, 2)
FRAMES = "replay.frame_stack=4"
STACKED = [
    *world("test/Counting-v0"),
    "+env.wrappers.stack={_target_: gymnasium.wrappers.FrameStackObservation, stack_size: 4}",
]


def played(ticks, num_envs, splits, padding="reset", seed=0):
    """Blocks of rows of numbered frames, stacked by a loop; episodes end at random, in SAME_STEP or NEXT_STEP."""
    rng = np.random.default_rng(seed)
    count = 0

    def frame():
        nonlocal count
        count += 1
        return np.full(FRAME, count, np.int64)

    def first():
        return [frame()] * STACK if padding == "reset" else [np.zeros(FRAME, np.int64)] * (STACK - 1) + [frame()]

    stacks = [first() for _ in range(num_envs)]
    ended = np.zeros(num_envs, bool)
    rows = {k: [] for k in ("obs", "action", "reward", "terminated", "truncated", "reset", "final_obs", "splits")}
    for _ in range(ticks):
        rows["obs"].append(np.array(stacks))
        terminated, truncated = rng.random((2, num_envs)) < 0.15
        reset = ended & (not splits)
        terminated, truncated = terminated & ~reset, truncated & ~reset
        ended, final = terminated | truncated, []
        for e in range(num_envs):
            following = [*stacks[e][1:], frame()]
            final.append(following)
            stacks[e] = first() if (reset[e] or (splits and ended[e])) else following
        given = (
            rng.integers(0, 2, num_envs),
            np.float32(rng.random(num_envs)),
            terminated,
            truncated,
            reset,
            np.array(final),
            ended,
        )
        for name, x in zip([*rows][1:], given, strict=True):
            rows[name].append(x)
    rows["obs"].append(np.array(stacks))
    return {k: np.array(x) for k, x in rows.items()}


def blocks(rows, size, splits):
    ticks = len(rows["action"])
    for low in range(0, ticks, size):
        high = min(low + size, ticks)
        cut = {k: x[low:high] for k, x in rows.items() if splits or k not in ("final_obs", "splits")}
        yield Rows(**{**cut, "obs": rows["obs"][low : high + 1]})


class EveryStart:
    def attach(self, ring):
        pass

    def sample(self, ring, generator):
        number = torch.arange(ring.rows)[:, None]
        found = (number < ring.count).nonzero()
        slot = ring.starts[(ring.evicted + found[:, 0][:, None]) % ring.rows, torch.arange(ring.num_envs)]
        start = slot.gather(1, found[:, 1:]).squeeze(1)
        return start % ring.rows, found[:, 1], torch.ones(len(found))


@pytest.mark.parametrize("padding", ["reset", "zero"])
@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("length", [1, 4])
@pytest.mark.parametrize("splits", [True, False], ids=["same_step", "next_step"])
@pytest.mark.parametrize("num_envs", [1, 3])
def test_single_frames_and_whole_stacks_give_the_same_samples(num_envs, splits, length, elsewhere, padding):
    spec = Spec((STACK, *FRAME), np.dtype(np.int64), 2)
    window = Memory.window_for(2, length, 0)
    compact = Ring(frame(spec, STACK), 40 * num_envs, num_envs, window, frame_stack=STACK,
                   frame_padding=padding)  # fmt: skip
    plain = Ring(spec, 40 * num_envs, num_envs, window)
    if elsewhere:  # the lines that run on a device
        compact.xp, compact.here = torch, {k: x for k, x in vars(compact).items() if isinstance(x, torch.Tensor)}
    rings = [Memory(ring, EveryStart(), 0.9, 2, torch.Generator(), length=length) for ring in (compact, plain)]
    compared = 0
    for block in blocks(played(300, num_envs, splits, padding), 7, splits):
        for memory in rings:
            memory.ring.extend(block)
        kept, whole = (memory.sample() for memory in rings)
        there = {(int(s), int(e)): i for i, (s, e) in enumerate(zip(*start_rows(plain, whole), strict=True))}
        pick = [there[int(s), int(e)] for s, e in zip(*start_rows(compact, kept), strict=True)]
        assert len(pick) >= len(there) - num_envs * (STACK - 1)
        assert torch.equal(kept.obs, whole.obs[:, pick])
        assert torch.equal(kept.reward, whole.reward[:, pick])
        compared += len(pick)
    assert compared > 1000
    assert int(plain.written.max()) > 2 * plain.rows  # it went round


def start_rows(ring, batch):
    """Row numbers of the starts: the newest row in each slot."""
    newest = ring.written[batch.env] - 1
    return newest - (newest - batch.slot) % ring.rows, batch.env


def test_a_run_learns_the_same_from_single_frames(wired):
    """To the last bit, as long as nothing was overwritten; afterwards two starts fewer can be drawn."""
    hashes, sizes = [], []
    for stack in (1, 4):
        run = wired(*STACKED, f"replay.frame_stack={stack}", "steps=400", "learning_starts=50", "torso.hidden=[8]")
        run.trainer.run()
        hashes.append([p.detach().clone() for p in run.trainer.learner.online.parameters()])
        sizes.append(run.trainer.memory.ring.obs.numel())
    assert all(map(torch.equal, *hashes))
    assert sizes[1] * 3.9 < sizes[0]


@pytest.mark.parametrize("wrong", ["newest first", "zeros before the first"])
def test_what_is_no_such_stack_is_refused_at_the_first_block(wrong):
    rows = played(20, 1, False)
    if wrong == "newest first":
        rows["obs"] = rows["obs"][:, :, ::-1].copy()
    else:
        rows = played(20, 1, False, "zero")
    ring = Ring(Spec(FRAME, np.dtype(np.int64), 2), 100, 1, frame_stack=STACK)
    with pytest.raises(UsageError, match="needs observations that are an episode's last 3 frames"):
        for block in blocks(rows, 10, False):
            ring.extend(block)


def test_offline_learning_is_the_same_from_recorded_frames_and_recorded_stacks(wired):
    """In every mixture of what was kept and what is kept now."""
    learned = []
    for recorded, kept in ((1, 1), (4, 4), (1, 4)):
        played = wired(*STACKED, f"replay.frame_stack={recorded}", "steps=300", "learning_starts=300", "env.num_envs=2")
        played.trainer.run()
        run = wired("algorithm=cql", *STACKED, f"replay.path={played.trainer.directory}", "steps=50",
                    f"replay.frame_stack={kept}", "torso.hidden=[8]", "n_step=1")  # fmt: skip
        run.trainer.run()
        learned.append([p.detach().clone() for p in run.trainer.learner.online.parameters()])
    assert all(all(map(torch.equal, learned[0], other)) for other in learned[1:])
    with pytest.raises(
        UsageError, match=r"choose the environment that it was recorded in, and its replay\.frame_stack"
    ):
        played = wired(*STACKED, "replay.frame_stack=4", "steps=100")
        played.trainer.run()
        wired("algorithm=cql", *STACKED, f"replay.path={played.trainer.directory}")


def test_an_episode_whose_start_was_overwritten_is_passed_over(wired):
    played = wired(*STACKED, "replay.frame_stack=4", "steps=300", "replay.capacity=50", "+env.kwargs.lengths=[7]")
    played.trainer.run()
    run = wired("algorithm=cql", *STACKED, f"replay.path={played.trainer.directory}", "replay.frame_stack=4", "steps=1")
    obs = run.trainer.memory.sample().obs[0]  # [B, 4, 3] tag, episode, step
    steps = obs[..., 2]
    assert torch.equal(steps[:, :-1], (steps[:, 1:] - 1).clamp_min(0))


@pytest.mark.parametrize(("dtype", "other"), [(torch.uint8, 255), (torch.bool, True), (torch.float32, float("inf"))])
def test_zeros_stand_before_an_episode_whatever_another_showed(dtype, other):
    frames, reset = torch.ones(6, 2, 2).to(dtype), torch.tensor([[False], [False], [True], [False], [False], [False]])
    frames[:3] = other
    seen = whole(frames, reset, torch.tensor([3, 4]), torch.arange(4), 1, "zero")
    assert seen.dtype == dtype
    assert seen[..., 0, 0].tolist() == [[0, 0, 0, 1], [0, 0, 1, 1]]


def test_what_has_no_such_axis_is_refused(wired):
    with pytest.raises(UsageError, match=r"first axis counts so many frames, these are \(4,\)"):
        wired("env=cartpole", "replay.frame_stack=3")
