"""Acting in a process of its own: the same run whoever is faster, killed anywhere or not, and what it refuses."""

import copy
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import configure, world
from torch import multiprocessing

from dqn.acting.channel import SLEEP, make_channel
from dqn.acting.collector import Collector
from dqn.config import build
from dqn.config.compatible import warnings
from dqn.errors import RunError, UsageError
from dqn.seeding import parameter_hash
from dqn.tracking.checkpoint import Checkpoints
from dqn.tracking.logger import start_text_log

HERE = Path(__file__).parent
REMOTE = "execution.actor=process"


class Lagging(Collector):
    """The oracle: in one process, by a copy of the weights that is made before each learning phase."""

    def __init__(self, collector, online):
        super().__init__(collector.envs, collector.actor, collector.stage)
        self.online, self.actor.network = online, copy.deepcopy(online)
        self.actor.network.draw_from(self.actor.generator)

    def collect(self, now, times, store, seconds):
        before, now = now, super().collect(now, times, store, seconds)
        if times.updates_due(before, now):
            self.actor.network.load_state_dict(self.online.state_dict())
        return now


def whole_state(trainer):
    ring = trainer.memory.ring
    rows = {k: torch.nan_to_num(v.double()) for k, v in ring.rows_since(torch.zeros_like(ring.written)).items()}
    parts = {**trainer.learner.state(), **{f"m/{k}": v for k, v in trainer.memory.state().items()}}
    return parameter_hash({**parts, **{f"r/{k}": v for k, v in rows.items()}})


VARIANTS = {
    "dqn": ["steps=1500", "learning_starts=200", "train_every=10"],
    "long blocks": ["steps=1500", "learning_starts=300", "train_every=150", "updates=4", "tracking.log_every=70"],
    "next step": ["steps=900", "learning_starts=100", "env.autoreset=next_step", "env.num_envs=3", "n_step=2"],
    "normalizer": ["normalizer=running", "steps=900", "learning_starts=200", "train_every=20", "env.num_envs=2"],
    "noise": ["algorithm=rainbow", "steps=700", "learning_starts=200", "torso.hidden=[32]", "target.period=30"],
    "memory and masks": [
        "algorithm=r2d2", *world("test/Masked-v0"), "steps=600", "learning_starts=200", "replay.length=6",
        "replay.burn_in=3", "replay.stride=2", "core.hidden=8", "torso.hidden=[32]", "replay.batch_size=8",
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", VARIANTS)
def test_it_acts_by_weights_one_learning_phase_old_and_by_no_others(wired, name):
    options = [*VARIANTS[name], "env.num_envs=1"] if name == "dqn" else VARIANTS[name]
    remote = wired(*options, REMOTE, "execution=eager").trainer
    remote.run()
    oracle = wired(*options, "execution=eager").trainer
    oracle.collector = Lagging(oracle.collector, oracle.learner.online)
    oracle.run()
    assert remote.env_steps == oracle.env_steps >= 600
    assert remote.updates == oracle.updates > 20
    assert whole_state(remote) == whole_state(oracle)


@pytest.mark.parametrize("execution", ["eager", "auto", "compile"])
def test_a_checkpoint_leaves_the_weights_it_acts_by_where_they_are(wired, execution):
    options = [*VARIANTS["dqn"], "env.num_envs=1", "exploration.epsilon=0.05", "optimizer.lr=0.01"]
    remote = wired(*options, REMOTE, f"execution={execution}").trainer
    for steps in (500, 1000, 1500):  # each ends with a checkpoint
        remote.times = replace(remote.times, steps=steps)
        remote.run()
    oracle = wired(*options, "execution=eager").trainer
    oracle.collector = Lagging(oracle.collector, oracle.learner.online)
    oracle.run()
    assert torch.equal(remote.memory.ring.action, oracle.memory.ring.action)


def made(directory, *options, resume=False):
    start_text_log(None)
    directory.mkdir(exist_ok=True)
    run = build.run(configure(*options, REMOTE, "tracking.checkpoint_every=200"), directory)
    if resume:
        for _ in run.trainer.restore(Checkpoints(directory / "checkpoints").load()):
            pass
    return run


@pytest.mark.parametrize("name", ["long blocks", "memory and masks", "normalizer"])
def test_interrupted_anywhere_equals_never_interrupted(tmp_path, name):
    options = [*VARIANTS[name], "train_every=7"]
    straight = made(tmp_path / "straight", *options)
    straight.trainer.run()
    for stop in (403, 10**9):
        broken = made(tmp_path / "broken", *options, resume=stop > 403)
        collect = broken.trainer.collector.collect

        def watched(*arguments, run=broken, collect=collect, stop=stop):
            now = collect(*arguments)
            run.trainer.stop = now >= stop  # as a signal does
            return now

        broken.trainer.collector.collect = watched
        broken.trainer.run()
        broken.close()
    assert whole_state(broken.trainer) == whole_state(straight.trainer)
    assert broken.trainer.env_steps == straight.trainer.env_steps
    straight.close()


def test_a_longer_budget_continues_exactly(tmp_path):
    options = ["learning_starts=200", "train_every=10", "env.num_envs=1"]
    straight = made(tmp_path / "straight", *options, "steps=900")
    straight.trainer.run()
    for steps in (503, 710, 900):  # within a phase, and at the end of one
        broken = made(tmp_path / "broken", *options, f"steps={steps}", resume=steps > 503)
        broken.trainer.run()
        broken.close()
        assert broken.trainer.env_steps == steps
    assert whole_state(broken.trainer) == whole_state(straight.trainer)
    straight.close()


def test_where_too_many_actions_are_kept_over_there_all_begins_anew(wired):
    trainer = wired("steps=400", "learning_starts=100", REMOTE).trainer
    receive, calls = trainer.collector.transport.receive, []

    def playing():
        calls.append(1)
        return replace(receive(), due=int(len(calls) == 9))

    trainer.collector.transport.receive = playing
    trainer.run()
    assert trainer.points == 2
    assert trainer.env_steps == 400


def test_what_an_environment_raises_over_there_is_said_here(wired):
    trainer = wired(*world("test/Raising-v0"), "steps=300", REMOTE).trainer
    with pytest.raises(RunError, match=r"environment 0 \(test/Raising-v0\) raised"):
        trainer.run()


def test_a_process_that_dies_is_said_in_one_sentence(wired):
    trainer = wired("steps=100000", REMOTE).trainer
    store = trainer.store

    def killing(rows):
        os.kill(trainer.collector.transport.process.pid, signal.SIGKILL)
        store(rows)

    trainer.store = killing
    with pytest.raises(RunError, match="The process that acts died"):
        trainer.run()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["env=tensor_cartpole"], "set execution.actor=local"),
        (["env.vectorization=async", "env.num_envs=2"], "set env.vectorization=sync"),
        (["execution.actor=proces"], "execution.actor must be local or process, got 'proces'"),
    ],
)
def test_what_it_cannot_do_is_refused(tmp_path, options, says):
    with pytest.raises(UsageError, match=says):
        build.run(configure(REMOTE, *options), tmp_path)


@pytest.mark.parametrize(("cores", "threads", "few"), [(1, 1, True), (2, 1, False), (2, 2, True), (4, 2, False)])
def test_a_core_for_each_thread_and_one_more_are_wanted(monkeypatch, cores, threads, few):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {*range(cores)}, raising=False)
    given = f"execution.threads={threads}"
    envs = SimpleNamespace(id="world", limit=100)
    assert any("wants a core" in sentence for sentence in warnings(configure(REMOTE, given), None, envs)) == few
    assert not any("wants a core" in sentence for sentence in warnings(configure(given), None, envs))


def test_a_run_killed_with_9_leaves_no_process_and_a_signal_to_all_leaves_a_checkpoint(tmp_path):
    command = [sys.executable, "-m", "dqn.train", "execution=eager", "steps=1000000", REMOTE,
               "tracking.checkpoint_every=300"]  # fmt: skip
    early, late = "config.yaml", "checkpoints/*.json"  # while the other process is being started, and after that
    for number, there in ((signal.SIGINT, early), (signal.SIGINT, late), (signal.SIGKILL, late)):
        directory = tmp_path / f"{number.name}{len(there)}"
        run = subprocess.Popen([*command, f"run.dir={directory}"], cwd=HERE, start_new_session=True, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
        while not [*directory.glob(there)] and run.poll() is None:
            time.sleep(0.02)
        time.sleep(0.3)
        if number == signal.SIGINT:
            os.killpg(run.pid, number)  # as a terminal does
            output, _ = run.communicate(timeout=60)
            assert run.returncode == 128 + number, output
            assert f"resume={directory}" in output
            assert "Traceback" not in output
        else:
            run.kill()
            run.communicate(timeout=60)
        deadline = time.monotonic() + 20
        while _living(run.pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not _living(run.pid)


def _living(session):
    """Whether any process of a session lives."""
    try:
        os.killpg(session, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_line_carries_numbers_and_things_in_turn_and_notices_a_death():
    mine, theirs = make_channel(multiprocessing.get_context("spawn"))
    got = []

    def other():
        for _ in range(3):
            got.append(theirs.receive(lambda: True))
            theirs.send(len(got), x=0.5)

    thread = threading.Thread(target=other)
    thread.start()
    big = np.arange(200_000)  # more than a pipe takes at once
    for i, send in enumerate((lambda: mine.send(3, 2**40), lambda: mine.send_object({"a": big}), lambda: mine.send(7))):
        send()
        numbers, thing = mine.receive(lambda: True)
        assert (numbers, thing) == ((i + 1, 0, 0, 0.5, 0.0), None)
    thread.join()
    assert got[0] == ((3, 2**40, 0, 0.0, 0.0), None)
    assert got[1][0] is None
    assert np.array_equal(got[1][1]["a"], big)
    assert got[2] == ((7, 0, 0, 0.0, 0.0), None)
    begin = time.monotonic()
    with pytest.raises(EOFError):
        mine.receive(lambda: False)
    assert time.monotonic() - begin < 3 * SLEEP
