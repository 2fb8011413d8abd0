"""The tape: who acts when; and that counts mean the same whatever num_envs is."""

import numpy as np
import pytest
import torch
from conftest import world
from safetensors.torch import load_file

from dqn.errors import RunError
from dqn.ops.clock import Times, crossed
from dqn.seeding import parameter_hash
from dqn.tracking.logger import start_text_log


def taped(run):
    """Record what the trainer asks of its parts, with env_steps."""
    trainer, tape = run.trainer, []

    def record(owner, name, word):
        original = getattr(owner, name)

        def call(*args, **kwargs):
            tape.append((word, trainer.env_steps))
            return original(*args, **kwargs)

        setattr(owner, name, call)

    record(trainer, "update", "update")
    record(trainer.learner, "sync_target", "sync")
    record(trainer, "write_log", "log")
    record(trainer, "write_evaluation", "evaluate")
    record(trainer, "checkpoint", "checkpoint")
    trainer.run()
    return tape


def test_the_tape_of_a_run(wired):
    run = wired(
        *world("test/OneState-v0", "steps=40", "learning_starts=10", "train_every=10", "updates=2", "target.period=15",
               "tracking.log_every=20", "tracking.evaluate_every=20", "tracking.checkpoint_every=20"),
    )  # fmt: skip
    assert taped(run) == [
        ("evaluate", 0),
        ("sync", 20), ("update", 20), ("update", 20), ("evaluate", 20), ("log", 20), ("checkpoint", 20),
        ("update", 30), ("update", 30), ("sync", 30),
        ("update", 40), ("update", 40), ("log", 40), ("checkpoint", 40), ("checkpoint", 40),
    ]  # fmt: skip


@pytest.mark.parametrize(("train_every", "period"), [(3, 7), (7, 3), (4, 9), (1, 1)])
def test_syncs_and_updates_are_counted_apart(wired, train_every, period):
    run = wired(*world("test/OneState-v0", "steps=126", "learning_starts=0", f"train_every={train_every}",
                       f"target.period={period}", "replay.batch_size=2", "env.autoreset=same_step"))  # fmt: skip
    words = [word for word, _ in taped(run)]
    assert words.count("sync") == 126 // period
    assert words.count("update") == 126 // train_every


@pytest.mark.parametrize(
    ("num_envs", "train_every", "period"), [(1, 32, 5), (1, 7, 7), (3, 32, 5), (8, 5, 3), (4, 8, 64)]
)
def test_syncs_and_updates_come_in_the_order_in_which_they_fall_due(wired, num_envs, train_every, period):
    run = wired(*world("test/OneState-v0", "steps=240", "learning_starts=20", f"train_every={train_every}",
                       f"env.num_envs={num_envs}", f"target.period={period}", "env.autoreset=same_step"))  # fmt: skip
    wanted = []
    for now in range(0, 240, num_envs):  # a tick after another: it learns, then it syncs
        behind = now + num_envs
        wanted += ["update"] * run.trainer.times.updates_due(now, behind)
        wanted += ["sync"] * crossed(now, behind, period)
    assert [word for word, _ in taped(run) if word in ("update", "sync")] == wanted


def test_polyak_syncs_after_every_update(wired):
    run = wired(*world("test/OneState-v0", "steps=60", "learning_starts=10", "target=polyak", "updates=3"))
    words = [word for word, _ in taped(run)]
    assert words.count("sync") == words.count("update") == 3 * (50 // 4)


@pytest.mark.parametrize("mode", ["next_step", "same_step"])
def test_one_and_eight_environments_count_alike(wired, mode):
    counts = []
    for num_envs in (1, 8):
        run = wired(*world("test/Counting-v0", f"env.num_envs={num_envs}", "steps=960", "learning_starts=80",
                           "train_every=8", "target.period=80", f"env.autoreset={mode}",
                           "replay.capacity=200"))  # fmt: skip
        words = [word for word, _ in taped(run)]
        epsilon = run.trainer.actor.exploration.rate(run.trainer.env_steps)
        counts.append((words.count("update"), words.count("sync"), len(run.trainer.memory.ring)))
        assert run.trainer.env_steps == pytest.approx(960, abs=8)
        assert epsilon == pytest.approx(1 - 0.95 * 960 / 10_000, abs=1e-3)
    assert counts[0][:2] == counts[1][:2] == (110, 12)


def test_the_next_stop_is_the_next_thing_due():
    times = Times(1000, 100, 30, 1, 70, 50, 0, 400)
    stops, now = [], 0
    while now < 1000:
        now = times.next_stop(now)
        stops.append(now)
    due = {s for s in range(1, 1001) if s % 50 == 0 or s % 400 == 0 or (s > 100 and (s - 100) % 30 == 0)}
    assert stops == sorted(due)
    assert sum(times.updates_due(a, b) for a, b in zip([0, *stops], stops, strict=False)) == 30
    assert [crossed(9, 10, 10), crossed(10, 19, 10), crossed(5, 25, 0), crossed(3, 25, 5)] == [1, 0, 0, 5]


def test_how_often_one_logs_changes_nothing(wired):
    hashes = set()
    for every in (7, 1000):
        run = wired(
            "env.num_envs=3",
            "steps=900",
            "learning_starts=100",
            "train_every=10",
            f"tracking.log_every={every}",
        )
        run.trainer.run()
        hashes.add(parameter_hash(run.trainer.learner.state()))
    assert len(hashes) == 1


def test_same_seed_same_hash_other_seed_other_hash(wired):
    hashes = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(hashes))  # global random state must not matter
        np.random.seed(len(hashes))
        run = wired(f"seed={seed}", "steps=600", "learning_starts=100")
        run.trainer.run()
        hashes.append(parameter_hash(run.trainer.learner.state()))
    assert hashes[0] == hashes[1] != hashes[2]


PLAIN = ["tuned=none", "tuned.quantiles=16", "tuned.samples=8", "steps=700", "learning_starts=100"]
CHANGES = [
    "gamma=0.9", "n_step=3", "learning_starts=150", "train_every=7", "updates=2", "max_grad_norm=0.01", "seed=5",
    "torso.hidden=[32]", "torso.norm=layer", "head.loss=squared", "head.kappa=0.1", "backup=double_q",
    "transform=signed_hyperbolic", "replay.capacity=150", "replay.batch_size=32", "exploration.epsilon.end=0.9",
    "exploration.epsilon.start=0.5", "exploration.epsilon.steps=300", "target.period=50", "target.polyak=0.5",
    "target=polyak", "target=none", "optimizer.lr=1e-3", "optimizer.eps=1e-3", "optimizer=sgd", "lr_schedule.end=0",
    "env.num_envs=2", "env.max_episode_steps=9", "env.autoreset=next_step", "core=lstm", "core=gru", "layer=noisy",
    "layer=spectral", "output=dueling", "output.hidden=[8]", "head=categorical", "head=hl_gauss", "head=quantile",
    "head=implicit_quantile", "head=full_quantile", "backup=soft", "backup=munchausen", "backup=expected_sarsa",
    "terms=conservative", "terms=cloning", "replay=prioritized", "replay.length=3", "exploration=boltzmann",
    "exploration=epsilon_ladder", "exploration=greedy", "optimizer=radam", "passes.epochs=2", "passes.minibatches=2",
    "exploration.ladder=2", "tuned.epsilon_end=0.5", "tuned.epsilon_steps=100",
]  # fmt: skip


@pytest.fixture(scope="module")
def plain_hash(tmp_path_factory):
    from conftest import build, configure

    run = build.run(configure(*PLAIN), tmp_path_factory.mktemp("plain"))
    run.trainer.run()
    run.close()
    return parameter_hash(run.trainer.learner.online.state_dict())


@pytest.mark.parametrize("change", CHANGES)
def test_every_option_changes_the_run(wired, plain_hash, change):
    more = ["env.num_envs=2", "tuned.epsilon_end=0.4"] if change == "exploration.ladder=2" else []
    run = wired(*PLAIN, change, *more)
    run.trainer.run()
    assert parameter_hash(run.trainer.learner.online.state_dict()) != plain_hash


@pytest.mark.parametrize("envs", [1, 16])
def test_a_soft_target_is_synced_at_every_multiple_of_its_period_whatever_num_envs_is(wired, envs, monkeypatch):
    run = wired(*world("test/OneState-v0", "target.polyak=0.1", "target.period=4", "steps=160", f"env.num_envs={envs}"))
    synced = []
    monkeypatch.setattr(run.trainer.learner, "sync_target", lambda: synced.append(run.trainer.env_steps))
    run.trainer.run()
    assert len(synced) == 40


def test_a_loss_that_is_no_number_stops_at_its_update_with_the_batch(wired):
    numbers = ["steps=300", "learning_starts=20", "train_every=1", "head.loss=squared"]
    run = wired(*world("test/HugeReward-v0", *numbers))
    with pytest.raises(RunError, match=r"not finite at update 1 .*lower optimizer.lr"):
        run.trainer.run()
    batch = load_file(run.trainer.directory / "diverged.safetensors")
    slot, ring = batch["slot"], run.trainer.memory.ring
    assert torch.equal(batch["reward"][0], ring.reward[slot, batch["env"]])
    assert torch.equal(batch["action"][0], ring.action[slot, batch["env"]])


@pytest.mark.parametrize(("world_of", "says"), [("NanReward", "rewards"), ("NanSeen", "observations")])
def test_a_loss_that_is_no_number_is_not_blamed_on_the_lr_where_the_world_gave_none(wired, world_of, says):
    """Worlds of tensors, and recorded data, are not looked at step by step."""
    run = wired("env=tensor", f"env.world._target_=worlds.{world_of}", "env.num_envs=4", "steps=300",
                "tuned.hidden=[8]", "learning_starts=20")  # fmt: skip
    with pytest.raises(RunError, match=rf"its {says} are not all finite, so correct what gave them\.$"):
        run.trainer.run()


def read_values(run, *readings, reward=1.0):
    start_text_log(None)  # to the stdout that is captured now
    for q in readings:
        run.trainer.value_warnings.read(q, reward)


LARGEST = world("test/OneState-v0", "gamma=0.5", "steps=50", "tracking.log_every=10")  # possible return: 2


@pytest.mark.parametrize(
    ("readings", "warnings"),
    [
        ([2.39] * 20, 0),  # a little above, as in healthy runs
        ([2.5, 3.0, 1.9, 2.5, 3.0, 1.9], 0),  # for a moment
        ([1.9, 2.5, 2.5, 3.0, 3.0, 3.0, 99.0], 1),  # for good
    ],
)
def test_q_well_above_the_largest_possible_return_for_some_time_warns_once(wired, capsys, readings, warnings):
    run = wired(*LARGEST)
    read_values(run, *readings, reward=0.0)  # no reward was seen: the return may be anything
    assert "largest possible return" not in capsys.readouterr().out
    read_values(run, *readings)
    assert capsys.readouterr().out.count("largest possible return 2 ") == warnings


def test_what_entropy_is_worth_is_no_overestimation(wired):
    run = wired("backup=soft", "tuned.v_max=5")
    read_values(run, *[500.0] * 9)
    assert run.trainer.value_warnings.warned == set()


def test_a_histogram_that_is_too_narrow_for_the_returns_warns_once(wired, capsys):
    run = wired("head=hl_gauss", "tuned.v_min=-100", "tuned.v_max=0")
    read_values(run, -50.0, -97.0, -99.0, -50.0, -1.0, -99.0, -1.0, -1.0, reward=1000.0)
    out = capsys.readouterr().out
    assert out.count("The largest Q, -1, lies at the edge of the head's support: widen tuned.v_min=-100") == 1


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["steps=100", "learning_starts=100"], "Nothing is learnt before learning_starts=100"),
        (["steps=50000", "lr_schedule.steps=40000"], "The lr is 0 for the last tenth of 50,000 steps"),
        (["exploration=epsilon_ladder"], "A single environment stands on the first rung"),
    ],
)
def test_what_is_seldom_meant_is_said(wired, overrides, says):
    assert [says in sentence for sentence in wired("env=cartpole", "env.num_envs=1", *overrides).warnings] == [True]
    assert wired("env=cartpole").warnings == []


def test_a_part_that_draws_from_torchs_own_stream_is_seeded(wired):
    def learned(seed):
        torch.manual_seed(123 + seed)  # whatever was drawn before
        run = wired("torso._target_=worlds.Dropped", "steps=400", "learning_starts=100", "seed=1")
        run.trainer.run()
        return parameter_hash(run.trainer.learner.online.state_dict())

    assert learned(1) == learned(2)


def test_an_exploration_of_ones_own_has_a_name_of_its_own_and_epsilon_may_be_a_number(wired):
    run = wired("exploration._target_=worlds.Curious", "steps=300", "learning_starts=200")
    run.trainer.run()
    assert run.trainer.actor.exploration.name == "curiosity"
    assert wired("exploration.epsilon=0.1").trainer.actor.exploration.rate(5) == 0.1


def test_nothing_is_read_from_the_device_in_an_update(wired):
    """A dispatch mode sees every read of a number by the host, on any device."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class NoReads(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            assert func.overloadpacket not in (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero), func
            return func(*args, **(kwargs or {}))

    run = wired("steps=300", "learning_starts=100", "n_step=3", "backup=double_q")
    run.trainer.run()
    with NoReads():
        run.trainer.update()
        run.trainer.learner.sync_target()
