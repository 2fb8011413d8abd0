"""Atari through ALE's own vector class: what a decision is, what ends a game, and which reward is reported."""

import numpy as np
import pytest
import torch
from conftest import configure, world

from dqn.config import parts
from dqn.replay.ring import Ring
from dqn.tracking.value_warnings import PERSISTENCE

pytest.importorskip("ale_py")
ATARI = ["env=atari", "replay.capacity=500", "steps=400"]


def watched(*overrides):
    """The configured environments, and what they tell of each step."""
    envs, episode_info = parts.environments(configure(*ATARI, *overrides)), []
    step = envs.envs.step
    envs.envs.step = lambda action: episode_info.append(step(action)) or episode_info[-1]
    return envs, episode_info


def test_a_decision_is_four_frames_counted_by_the_emulator_and_a_game_is_cut_at_its_cap():
    """No second frame skip lies above ALE's; the cap is 108,000 frames unless told otherwise."""
    envs, episode_info = watched("+env.kwargs.max_num_frames_per_episode=400", "+env.kwargs.noop_max=0")
    begun, cut, played = envs.reset(0), [], 0
    assert begun.shape == (1, 4, 84, 84) and begun.dtype == np.uint8
    for _ in range(250):
        step = envs.step(np.zeros(1, np.int64))
        played = 0 if step.reset[0] else played + 1
        if step.truncated[0]:
            cut.append(played)
    frames = np.array([info["episode_frame_number"][0] for *_, info in episode_info])
    ahead = np.diff(frames)
    assert {*ahead[ahead > 0]} == {4}
    assert cut == [100, 100]
    envs.close()
    assert envs.envs.spec.kwargs["max_num_frames_per_episode"] == 400
    usual, _ = watched()
    assert usual.envs.spec.kwargs.get("max_num_frames_per_episode", 108_000) == 108_000
    usual.close()


def test_frames_of_a_game_are_kept_once_and_stacks_come_back(wired):
    """Across the ends of short games and round the ring: every sample is a stack that was seen."""
    run = wired(*ATARI, "env.num_envs=2", "+env.kwargs.max_num_frames_per_episode=120", "steps=1500",
                "learning_starts=2000", "replay.capacity=300")  # fmt: skip
    ring, seen = run.trainer.memory.ring, set()
    assert ring.obs.shape[2:] == (84, 84)
    extend = ring.extend

    def noted(rows):
        seen.update(stack.tobytes() for stack in rows.obs.reshape(-1, 4, 84, 84))
        extend(rows)

    ring.extend = noted
    run.trainer.run()
    assert isinstance(ring, Ring) and int(ring.written.min()) > 2 * ring.rows
    for _ in range(20):
        obs = run.trainer.memory.sample().obs
        assert {stack.numpy().tobytes() for stack in obs.flatten(0, 1)} <= seen


def test_what_is_learnt_is_cut_and_what_is_reported_is_not(wired):
    run = wired(*world("test/OneState-v0"), "+env.wrappers.more={_target_: worlds.Times5}", "reward_clip=1",
                "gamma=0.5", "torso=table", "layer=table", "optimizer.lr=0.1", "steps=600", "learning_starts=100",
                "train_every=1", "tuned.target_period=10")  # fmt: skip
    trainer = run.trainer
    trainer.run()
    assert {*trainer.meter.recent} == {50.0}
    assert trainer.evaluate(2)["returns"] == [50.0, 50.0]
    assert trainer.learner.online(torch.tensor([0])).q.item() == pytest.approx(2.0, abs=0.05)
    assert float(trainer.memory.ring.reward.nan_to_num().max()) == 5.0  # kept as it was
    assert trainer.value_warnings.warned == set()
    for _ in range(PERSISTENCE):
        trainer.meter.note_update(
            torch.tensor([0.0, 0.0, 0.0, 2.5, 0.0])
        )  # q_max, above 1 / (1 − γ), below 5 / (1 − γ)
        trainer.write_log()
    assert trainer.value_warnings.warned == {"overestimation"}  # by the rewards as they are learnt


def test_a_lost_life_ends_no_game_and_resets_nothing(wired):
    run = wired(*world("test/ThreeLives-v0"), "steps=300", "learning_starts=400")
    run.trainer.run()
    assert {*run.trainer.meter.recent} == {9.0}  # three lives of three steps
    assert run.trainer.evaluate(3)["lengths"] == [9, 9, 9]
