"""Killed anywhere == never killed; and what a run's directory holds."""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import configure, here, mostly_slow, world
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dqn import evaluate, train
from dqn.config import build
from dqn.config.resume import claimed, keep
from dqn.errors import UsageError
from dqn.seeding import parameter_hash
from dqn.tracking.checkpoint import Checkpoints
from dqn.tracking.logger import STAGES, TAGS, start_text_log

HERE = Path(__file__).parent


def whole_state(trainer):
    """Everything that decides the future, as one hash."""
    ring = trainer.memory.ring
    rows = {k: torch.nan_to_num(v.double()) for k, v in ring.rows_since(torch.zeros_like(ring.written)).items()}
    return parameter_hash({**trainer.learner.state(), **{f"m/{k}": v for k, v in trainer.memory.state().items()},
                           **{f"r/{k}": v for k, v in rows.items()}, **trainer.actor.state()})  # fmt: skip


def make(directory, *overrides, resume=False):
    start_text_log(None)
    directory.mkdir(exist_ok=True)
    trainer = build.run(configure(*overrides), directory).trainer
    if resume:
        lines = [*trainer.restore(Checkpoints(directory / "checkpoints").load())]
        assert {line.split(":")[0] for line in lines} == {
            "replay",
            "learner",
            "memory",
            "actor",
            "collector",
            "trainer",
            "counters",
        }
    return trainer


def stop_at(trainer, env_steps):
    """As a signal does: at whatever moment the trainer next looks."""
    collect = trainer.collector.collect

    def watched(*arguments):
        now = collect(*arguments)
        trainer.stop = now >= env_steps
        return now

    trainer.collector.collect = watched


SIGNALS = [signal.SIGINT, signal.SIGTERM]  # one handler answers both
VARIANTS = {
    "dqn": ["steps=1500", "learning_starts=200"],
    "frame_stack": [
        "steps=1500", "learning_starts=200", "replay.capacity=400", "replay.frame_stack=4", "env.num_envs=2",
        "+env.wrappers.stack={_target_: gymnasium.wrappers.FrameStackObservation, stack_size: 4}",
    ],
    "n_step": ["steps=1500", "learning_starts=200", "n_step=3", "replay.capacity=400", "env.num_envs=3"],
    "next_step": [
        "steps=1500",
        "learning_starts=200",
        "env.autoreset=next_step",
        "n_step=2",
        "env.num_envs=2",
    ],
    "disabled": [
        "steps=1500",
        "learning_starts=200",
        "env.autoreset=disabled",
        "target=polyak",
        "lr_schedule.end=0",
        "lr_schedule.steps=2000",
    ],
    "auto": ["execution=auto", "steps=1500", "learning_starts=200", "env.num_envs=1"],
    "tabular": ["algorithm=tabular", "env=chain", "steps=700"],
    "normalizer": ["normalizer=running", "steps=900", "learning_starts=200", "env.num_envs=3"],
    "rainbow": ["algorithm=rainbow", "steps=900", "learning_starts=200", "replay.capacity=300", "torso.hidden=[32]"],
    "rainbow_iqn": [
        "algorithm=rainbow_iqn", "steps=700", "learning_starts=200", "torso.hidden=[32]", "tuned.samples=4",
        "env.autoreset=next_step",
    ],
    "pqn": ["algorithm=pqn", "steps=1500", "env.num_envs=4", "passes.minibatches=4", "torso.hidden=[32]"],
    "r2d2": [
        "algorithm=r2d2", "steps=900", "learning_starts=200", "replay.length=6", "replay.burn_in=3",
        "replay.stride=2", "core.hidden=8", "torso.hidden=[32]", "replay.batch_size=8",
    ],
}  # fmt: skip


def test_loaded_tensors_lie_where_new_ones_would(tmp_path):
    """safetensors puts tensors at any address; a matrix product over one that is not aligned rounds otherwise."""
    make(tmp_path / "run", "algorithm=r2d2", "core.hidden=5", "steps=200").run()
    tensors = Checkpoints(tmp_path / "run" / "checkpoints").load().tensors
    assert all(t.data_ptr() % 64 == 0 for t in tensors.values() if t.numel())


@pytest.mark.parametrize("name", VARIANTS)
def test_interrupted_anywhere_equals_never_interrupted(tmp_path, name):
    """Before a checkpoint, between two, at one and after it."""
    options = [*VARIANTS[name], "tracking.checkpoint_every=200"]
    straight = make(tmp_path / "straight", *options)
    straight.run()
    broken = None
    for stop in (17, 333, 400, 401, 402, 650, 10**9) if name == "dqn" else (17, 333, 400, 402, 10**9):
        broken = make(tmp_path / "broken", *options, resume=broken is not None)
        stop_at(broken, stop)
        broken.run()
    assert whole_state(broken) == whole_state(straight)
    assert (broken.env_steps, broken.updates) == (straight.env_steps, straight.updates)


@pytest.mark.parametrize("more", [[], ["normalizer=running"]], ids=str)
def test_a_longer_budget_continues_exactly(tmp_path, more):
    options = ["learning_starts=200", "tracking.checkpoint_every=400", *more]
    straight = make(tmp_path / "straight", *options, "steps=1500")
    straight.run()
    make(tmp_path / "broken", *options, "steps=900").run()
    longer = make(tmp_path / "broken", *options, "steps=1500", resume=True)
    longer.run()
    assert whole_state(longer) == whole_state(straight)


def test_without_checkpoints_on_the_way_few_actions_are_kept_and_resumes_stay_exact(tmp_path, monkeypatch):
    monkeypatch.setattr("dqn.acting.collector.REPLAYABLE", 40)
    straight = make(tmp_path / "straight", "steps=900", "learning_starts=100")
    straight.run()
    assert straight.points > 5
    stopped = make(tmp_path / "stopped", "steps=900", "learning_starts=100")
    stop_at(stopped, 333)
    stopped.run()
    assert len(stopped.collector.actions) < 45
    resumed = make(tmp_path / "stopped", "steps=900", "learning_starts=100", resume=True)
    resumed.run()
    assert whole_state(resumed) == whole_state(straight)


def test_a_new_lr_beside_resume_really_changes_it(tmp_path):
    options = ["learning_starts=100", "steps=600"]
    make(tmp_path / "run", *options, "steps=300").run()
    trainer = make(tmp_path / "run", *options, "optimizer.lr=0", resume=True)
    before = parameter_hash(trainer.learner.online.state_dict())
    trainer.run()
    assert trainer.updates > 80
    assert parameter_hash(trainer.learner.online.state_dict()) == before


def test_a_world_that_is_not_deterministic_resumes_with_new_episodes_and_says_so(tmp_path, capsys):
    options = [*world("test/Shaky-v0"), "steps=300", "learning_starts=50"]
    stopped = make(tmp_path / "run", *options)
    stop_at(stopped, 123)
    stopped.run()
    resumed = make(tmp_path / "run", *options, resume=True)
    assert "not deterministic" in capsys.readouterr().out
    resumed.run()
    assert resumed.env_steps == 300


def test_a_cut_made_while_restoring_is_saved_by_the_next_checkpoint(tmp_path):
    options = [*world("test/Shaky-v0"), "steps=300", "learning_starts=50", "env.autoreset=next_step"]
    for stop in (122, 203, 10**9):  # each restore finds another world and cuts the running episode
        trainer = make(tmp_path / "run", *options, resume=stop != 122)
        stop_at(trainer, stop)
        trainer.run()
    ring = trainer.memory.ring
    resets = ring.reset[: int(ring.written), 0].nonzero()[:, 0]
    done = (ring.terminated | ring.truncated | ring.reset)[:, 0]  # a cut just after an end leaves two reset rows
    assert len(resets) > 20
    assert done[resets - 1].all()


def run_to_end(*arguments):
    code, out, errors = here(train, *arguments)
    assert code == 0, errors
    return out + errors


def refused(*arguments):
    """The sentence with which a run is refused."""
    code, out, errors = here(train, *arguments)
    assert code == 2, errors
    return out + errors


def command(*arguments, **kwargs):
    return [sys.executable, "-m", "dqn.train", *arguments], {
        "cwd": HERE,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
        "text": True,
        **kwargs,
    }


REAL = ["steps=3000", "learning_starts=200", "tracking.checkpoint_every=500", "tracking.evaluate_every=1000",
        "tracking.final_episodes=2", "tracking.evaluate_episodes=2", "tracking.log_every=100"]  # fmt: skip


@pytest.fixture(scope="module")
def never_killed(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "whole"
    output = run_to_end(*REAL, f"run.dir={directory}")
    return directory, output


def events(directory):
    accumulator = EventAccumulator(str(directory), size_guidance={"scalars": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def test_kill_9_for_real_then_resume_equals_never_killed(never_killed, tmp_path):
    directory = tmp_path / "killed"
    args, kwargs = command(*REAL, f"run.dir={directory}")
    process = subprocess.Popen(args, **kwargs)
    for _ in range(2):  # killed twice: once early, once after the first resume
        have = len(list(directory.glob("checkpoints/*.json")))
        deadline = time.monotonic() + 100
        newest = max((p.name for p in directory.glob("checkpoints/*.json")), default="")
        while process.poll() is None and time.monotonic() < deadline:
            if max((p.name for p in directory.glob("checkpoints/*.json")), default="") > newest:
                break
            time.sleep(0.01)
        assert process.poll() is None, (have, process.communicate()[0])
        time.sleep(0.05)
        process.kill()
        process.wait()
        args, kwargs = command(f"resume={directory}")
        process = subprocess.Popen(args, **kwargs)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    assert "restored learner" in output
    results = [json.loads((d / "result.json").read_text()) for d in (directory, never_killed[0])]
    assert results[0]["parameter_hash"] == results[1]["parameter_hash"]
    assert results[0]["evaluation"] == results[1]["evaluation"]
    for tag in events(directory).Tags()["scalars"]:
        steps = [event.step for event in events(directory).Scalars(tag)]
        assert all(a < b for a, b in pairwise(steps)), (tag, steps)


def test_a_run_directory_holds_what_it_should(never_killed):
    directory, output = never_killed
    result = json.loads((directory / "result.json").read_text())
    assert {"evaluation", "env_steps", "updates", "seconds", "seconds_by_stage", "parameter_hash", "device", "engine",
            "versions"} <= set(result)  # fmt: skip
    assert result["env_steps"] == 3000
    assert len(result["evaluation"]["returns"]) == 2
    assert (directory / "config.yaml").is_file()
    assert "Greedy evaluation" in (directory / "train.log").read_text()
    assert f"python -m dqn.evaluate run={directory}" in output
    assert str(directory) in output
    assert "Adam(lr=" in output  # the summary


def test_tensorboard_has_the_fixed_tags_hparams_and_config(never_killed):
    accumulator = events(never_killed[0])
    tags = set(accumulator.Tags()["scalars"])
    expected = {tag for tag in TAGS if not tag.startswith(("qstar/", "exploration/temperature"))}
    assert expected <= tags
    assert len(tags) <= 60
    shares = {s: np.median([e.value for e in accumulator.Scalars(f"time/{s}")]) for s in STAGES}
    assert 0.5 < sum(shares.values()) <= 1.05
    assert shares["log"] < 0.05  # with a line every 100 steps, ten times the default
    assert any("config" in tag for tag in accumulator.Tags()["tensors"])
    assert any(tag.startswith("_hparams_/") for tag in accumulator.summary_metadata)
    assert len(list(never_killed[0].glob("events*"))) == 1  # no directory of its own for the hparams
    assert [e.step for e in accumulator.Scalars("evaluation/return")] == [0, 1000, 2000, 3000]


@pytest.mark.parametrize("number", mostly_slow(SIGNALS, [signal.SIGTERM]))
def test_a_signal_ends_with_a_checkpoint_that_resumes_exactly(never_killed, tmp_path, number):
    directory = tmp_path / "stopped"
    args, kwargs = command(*REAL, f"run.dir={directory}")
    process = subprocess.Popen(args, **kwargs)
    while not list(directory.glob("checkpoints/*.json")) and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, output
    assert f"resume={directory}" in output
    assert "Traceback" not in output
    run_to_end(f"resume={directory}")
    results = [json.loads((d / "result.json").read_text()) for d in (directory, never_killed[0])]
    assert results[0]["parameter_hash"] == results[1]["parameter_hash"]


@pytest.mark.parametrize("text", ["seed: 1\n\tsteps: [", "", "- a list", "seed: ${nowhere:"])
@pytest.mark.parametrize(("verb", "option"), [(evaluate, "run="), (train, "resume=")], ids=["evaluate", "resume"])
def test_a_damaged_configuration_is_one_sentence(tmp_path, verb, option, text):
    (tmp_path / "config.yaml").write_text(text)
    code, _, errors = here(verb, f"{option}{tmp_path}")
    assert code == 2
    assert errors.startswith(f"error: {tmp_path / 'config.yaml'} is damaged ("), errors
    assert len(errors.splitlines()) == 1


def test_evaluate_writes_beside_the_result_and_changes_nothing(never_killed):
    directory, _ = never_killed
    before = {p: p.read_bytes() for p in directory.rglob("*") if p.is_file()}
    outputs = []
    for episodes in ("3", "3e0"):
        code, out, errors = here(evaluate, f"run={directory}", f"episodes={episodes}")
        assert code == 0, errors
        outputs.append((directory / "evaluation.json").read_text())
    assert outputs[0] == outputs[1]
    evaluation = json.loads(outputs[0])
    assert evaluation["episodes"] == 3
    assert np.mean(evaluation["returns"]) == evaluation["mean"]
    assert "3 episodes" in out
    assert {p: p.read_bytes() for p in before} == before
    for bad in (["run=/nowhere"], [f"run={directory}", "episode=3"], [f"run={directory}", "epsilon=x"], []):
        code, _, errors = here(evaluate, *bad)
        assert code == 2
        assert errors.startswith("error: ")
        assert len(errors.splitlines()) == 1


def test_a_damaged_checkpoint_is_one_sentence(tmp_path):
    directory = tmp_path / "run"
    run_to_end("steps=30", f"run.dir={directory}", "tracking.final_episodes=1")
    for path in directory.glob("checkpoints/*.safetensors"):
        path.write_bytes(b"no tensors")
    said = refused(f"resume={directory}", "steps=60")
    assert "very checkpoint in " in said and "is damaged" in said
    assert "Traceback" not in said


def test_a_result_is_that_of_all_the_steps_and_processes_of_its_run(tmp_path):
    directory = tmp_path / "run"
    run_to_end("steps=300", f"run.dir={directory}", "tracking.final_episodes=1")
    first = json.loads((directory / "result.json").read_text())["seconds"]
    run_to_end(f"resume={directory}", "tracking.final_episodes=1")  # nothing is left to do
    again = json.loads((directory / "result.json").read_text())
    assert again["seconds"] > first
    said = refused(f"resume={directory}", "steps=100")
    assert "steps=100 are fewer than the 300 of this run" in said
    assert json.loads((directory / "result.json").read_text()) == again
    args, kwargs = command(f"resume={directory}", "steps=100000000")
    process = subprocess.Popen(args, **kwargs)
    while (directory / "result.json").exists() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (directory / "result.json").exists()  # it told of 300 steps


def test_numbers_given_beside_resume_become_the_runs_own(tmp_path):
    directory = tmp_path / "run"
    run_to_end("steps=30", f"run.dir={directory}", "tracking.final_episodes=1")
    run_to_end(f"resume={directory}", "steps=60", "optimizer.lr=1e-4")
    text = (directory / "config.yaml").read_text()
    assert "steps: 60" in text
    assert "lr: 0.0001" in text
    assert "resume: null" in text
    assert json.loads((directory / "result.json").read_text())["env_steps"] == 60  # a multiple of the environments


@pytest.mark.parametrize(
    "change",
    ["seed=3", "n_step=2", "replay.capacity=77", "env.num_envs=2", "torso.hidden=[32]", "env.id=Acrobot-v1",
     "passes.epochs=2", "tuned.hidden=[7]", "env.max_episode_steps=9"],
)  # fmt: skip
def test_what_a_run_was_made_with_cannot_change(change):
    name = change.partition("=")[0]
    name = {"tuned.hidden": "torso", "torso.hidden": "torso", "passes.epochs": "passes"}.get(name, name)
    with pytest.raises(UsageError, match=f"^{name}.* cannot change in a resumed run"):
        keep(configure(change), configure())
    keep(configure("optimizer.lr=1", "steps=5", "gamma=0.5"), configure())


def test_a_resume_that_is_refused_leaves_the_run_as_it_was(tmp_path):
    directory = tmp_path / "run"
    run_to_end("steps=30", f"run.dir={directory}", "tracking.final_episodes=1")
    before = (directory / "config.yaml").read_text()
    said = refused(f"resume={directory}", "n_step=10", "steps=60")
    assert "n_step cannot change" in said
    assert (directory / "config.yaml").read_text() == before
    run_to_end(f"resume={directory}", "steps=60")


def test_the_importance_exponent_reaches_its_end_with_the_run_and_a_longer_budget_does_not_move_it(tmp_path):
    """Schaul et al. (2016), §3.4: over the whole run, as it was when it began. A resume with more steps goes on with
    the same schedule, so it is the run that would have been made with that schedule from the start, bit for bit."""
    options = ["replay=prioritized", "learning_starts=100", "tuned.hidden=[16,16]", "tracking.checkpoint_every=100",
               "tracking.evaluate_every=0", "tracking.final_episodes=0", "execution=eager"]  # fmt: skip

    def trained(name, *arguments):
        run_to_end(*arguments)
        cfg = OmegaConf.load(tmp_path / name / "config.yaml")
        result = json.loads((tmp_path / name / "result.json").read_text())
        return cfg.replay.sampler.importance_exponent.steps, result["parameter_hash"]

    def steps(*more):
        return configure("replay=prioritized", *more).replay.sampler.importance_exponent.steps

    assert (steps("steps=600"), steps("steps=600", "tuned.importance_steps=300")) == (600, 300)
    assert trained("broken", *options, f"run.dir={tmp_path}/broken", "steps=200")[0] == 200
    longer, resumed = trained("broken", f"resume={tmp_path}/broken", "steps=400")
    assert longer == 200
    same = [*options, f"run.dir={tmp_path}/straight", "steps=400"]
    assert trained("straight", *same, "tuned.importance_steps=200") == (200, resumed)
    other = [*options, f"run.dir={tmp_path}/other", "steps=400"]
    assert trained("other", *other)[1] != resumed  # so it matters


def test_groups_cannot_be_chosen_anew_beside_resume(never_killed):
    said = refused(f"resume={never_killed[0]}", "backup=double_q")
    assert "keeps its parts" in said


def test_a_sweep_ends_with_a_sorted_table(tmp_path):
    args, kwargs = command("-m", "algorithm=tabular", "env=chain", "optimizer.lr=0.01,0.5", "gamma=0.8",
                           "steps=400", f"hydra.sweep.dir={tmp_path}/sweep", "tracking.final_episodes=1")  # fmt: skip
    done = subprocess.run(args, check=False, timeout=200, **kwargs)
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    first = next(i for i, line in enumerate(lines) if "max |Q−Q*|" in line) + 1
    rows = [line.split() for line in lines[first : first + 2]]
    assert [row[0] for row in rows] == ["0.5", "0.01"]  # the best first
    assert float(rows[0][1]) < float(rows[1][1])


def test_a_sweep_goes_on_after_a_failure_names_it_and_repeats_nothing(tmp_path):
    sweep = ["-m", "algorithm=tabular", "env=chain", "backup=q_learning,double_q", "n_step=0,1", "steps=200",
             f"hydra.sweep.dir={tmp_path}/sweep", "tracking.final_episodes=1"]  # fmt: skip
    args, kwargs = command(*sweep)
    first = subprocess.run(args, check=False, timeout=200, **kwargs)
    assert first.returncode == 1
    assert first.stdout.count("error: job ") == 2
    assert "error: job 0-backup=q_learning,n_step=0: n_step must be a whole number ≥ 1, got 0." in first.stdout
    assert {"q_learning", "double_q"} <= {line.split(" ")[-1] for line in first.stdout.replace("  ", "\n").splitlines()}
    written = {path: path.read_text() for path in (tmp_path / "sweep").glob("*/result.json")}
    names = ["1-backup=q_learning,n_step=1", "3-backup=double_q,n_step=1"]
    assert sorted(path.parent.name for path in written) == names
    for path in (tmp_path / "sweep" / names[1]).glob("result.json"):
        path.unlink()  # as if it had been killed before its closing evaluation
    again = subprocess.run(args, check=False, timeout=200, **kwargs)
    assert again.returncode == 1
    assert f"{names[0]} is finished." in again.stdout
    assert "Resuming from" in (tmp_path / "sweep" / names[1] / "train.log").read_text()
    assert json.loads((tmp_path / "sweep" / names[1] / "result.json").read_text())["env_steps"] == 200
    finished = tmp_path / "sweep" / names[0] / "result.json"
    assert finished.read_text() == written[finished]


@pytest.mark.parametrize("number", mostly_slow(SIGNALS, [signal.SIGINT]))
def test_a_signal_to_the_whole_terminal_leaves_workers_for_the_checkpoint(tmp_path, number):
    directory = tmp_path / "run"
    args, kwargs = command(f"run.dir={directory}", *world("test/Odd-v0"), "env.vectorization=async",
                           "env.num_envs=2", "+env.kwargs.pause=0.001", "steps=100000",
                           "tracking.log_every=50")  # fmt: skip
    process = subprocess.Popen(args, start_new_session=True, **kwargs)
    for _ in range(1000):
        time.sleep(0.1)
        if (directory / "progress.jsonl").exists() and (directory / "progress.jsonl").stat().st_size:
            break
    os.killpg(process.pid, number)
    assert process.wait(60) == 128 + number
    assert Checkpoints(directory / "checkpoints").load().counters["env_steps"] > 0
    assert "Traceback" not in (directory / "train.log").read_text()


@pytest.mark.parametrize("name", ["ünï 日本", "a=b,c(d)", "it's [1] {x} #2 ~$"])
def test_a_run_lies_and_is_resumed_wherever_its_path_leads(tmp_path, name):
    directory = tmp_path / name
    escaped = str(directory).replace("'", "\\'")
    run_to_end("steps=30", f"run.dir='{escaped}'", "tracking.final_episodes=1")
    run_to_end(f"resume={directory}", "steps=60")
    run_to_end(f"resume='{directory}'", "steps=90")
    assert json.loads((directory / "result.json").read_text())["env_steps"] >= 90


def test_a_run_that_died_before_its_first_checkpoint_is_begun_again(tmp_path):
    directory = tmp_path / "run"
    directory.mkdir()
    (directory / "config.yaml").write_text("of another time")
    run_to_end("steps=3e1", f"run.dir={directory}", "tracking.final_episodes=1")
    said = refused("steps=30", f"run.dir={directory}")
    assert len(said.splitlines()) == 2 and said.startswith("dqn "), said  # what is loading, and the sentence
    assert "already holds a run" in said


def test_a_stop_during_an_evaluation_does_not_wait_for_its_end(tmp_path):
    trainer = make(tmp_path / "run", *world("test/Odd-v0"), "steps=1000", "tracking.evaluate_every=100",
                   "tracking.evaluate_episodes=1000", "+env.kwargs.lengths=[1000]")  # fmt: skip
    write = trainer.write_evaluation

    def stopped():
        trainer.stop = trainer.env_steps == 100
        return write()

    trainer.write_evaluation = stopped
    trainer.run()
    assert trainer.env_steps == 100
    assert trainer.complete is False
    assert Checkpoints(tmp_path / "run/checkpoints").load().counters["env_steps"] == 100


def test_an_evaluation_that_a_signal_interrupted_is_made_by_the_resume(tmp_path):
    def evaluations():
        events = EventAccumulator(str(tmp_path / "run")).Reload()
        if "evaluation/return" not in events.Tags()["scalars"]:
            return []
        return [event.step for event in events.Scalars("evaluation/return")]

    given = [*world("test/OneState-v0"), "steps=60", "tracking.evaluate_every=20"]
    trainer = make(tmp_path / "run", *given)
    evaluate = trainer.evaluate

    def interrupted(*given, **named):
        trainer.stop = trainer.env_steps == 40
        return evaluate(*given, **named)

    trainer.evaluate = interrupted
    interrupted.training = evaluate.training
    interrupted.close = evaluate.close
    trainer.run()
    trainer.logger.close()
    assert (trainer.env_steps, evaluations()) == (40, [0, 20])
    again = make(tmp_path / "run", *given, resume=True)
    again.run()
    again.logger.close()
    assert (again.env_steps, evaluations()) == (60, [0, 20, 40])


def test_a_longer_budget_does_not_repeat_the_closing_evaluation(tmp_path):
    given = [*world("test/OneState-v0"), "tracking.evaluate_every=20"]
    make(tmp_path / "run", *given, "steps=40").run()
    again = make(tmp_path / "run", *given, "steps=60", resume=True)
    evaluate, evaluated = again.evaluate, []

    def noted(*given, **named):
        evaluated.append(again.env_steps)
        return evaluate(*given, **named)

    again.evaluate = noted
    noted.training = evaluate.training
    again.run()
    assert (again.env_steps, evaluated) == (60, [])  # at 40 the verb did, as it will at 60


def test_two_processes_do_not_share_a_directory(tmp_path):
    with claimed(tmp_path), pytest.raises(UsageError, match="Another process runs in"), claimed(tmp_path):
        pass
    with claimed(tmp_path):
        pass


def steps_of_every_tag(directory):
    """{tag: steps} as TensorBoard has them after all files of a run's directory were read."""
    accumulator = events(directory)
    return {tag: [e.step for e in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]}


@pytest.mark.parametrize("more", ["steps=300", "steps=500"])
def test_no_step_is_in_tensorboard_twice_when_a_finished_run_is_resumed(tmp_path, more):
    directory = tmp_path / "run"
    run_to_end("steps=300", "tracking.log_every=100", f"run.dir={directory}", "tracking.final_episodes=1",
               "tracking.evaluate_every=100", "tracking.evaluate_episodes=1")  # fmt: skip
    run_to_end(f"resume={directory}", more)
    for tag, steps in steps_of_every_tag(directory).items():
        assert steps == sorted({*steps}), tag


def test_no_step_is_in_tensorboard_twice_when_a_run_is_begun_again_before_its_first_checkpoint(tmp_path):
    """As after kill -9: the event file of the process that died is still there."""
    directory, given = tmp_path / "run", [*world("test/OneState-v0"), "tracking.evaluate_every=20"]
    died = make(directory, *given, "steps=60")
    died.run()
    died.logger.close()
    for path in [*(directory / "checkpoints").iterdir()]:
        path.unlink()
    (directory / "config.yaml").unlink(missing_ok=True)
    run_to_end(*given, "steps=100", "tracking.log_every=20", "tracking.final_episodes=1", f"run.dir={directory}")
    found = steps_of_every_tag(directory)
    assert len(found) > 3
    for tag, steps in found.items():
        assert steps == sorted({*steps}), tag
