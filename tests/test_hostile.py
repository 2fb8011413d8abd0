"""Environments, disks and signals that misbehave: a run says what happened, loses nothing, and leaves no process."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import hostile
import psutil
import pytest
from conftest import here

from dqn import evaluate, train
from dqn.tracking.checkpoint import Checkpoints

HERE = Path(__file__).parent
SHORT = ["steps=200", "learning_starts=50", "tracking.final_episodes=2", "execution=eager", "torso.hidden=[8]"]


def world(name, *more):
    return ["env=gym", f"env.id=hostile/{name}-v0", "env.imports=[hostile]", *SHORT, *more]


STARTED: list[subprocess.Popen] = []


@pytest.fixture(autouse=True)
def nothing_left_behind():
    """A test that fails leaves no training that takes time from those after it."""
    yield
    for process in STARTED:
        process.kill()
    STARTED.clear()


def started(*arguments):
    """A training in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dqn.train", *map(str, arguments)],
        cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    STARTED.append(process)
    return process


def held(condition):
    try:
        return condition()
    except FileNotFoundError:
        return False


def wait_until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not held(condition):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


# Environments that call sys.exit


@pytest.mark.parametrize("where", ["init", "reset", "step", "close"])
@pytest.mark.parametrize("way", ["sync", "async"])
def test_an_environment_that_exits_does_not_end_a_run_as_if_all_were_well(tmp_path, where, way):
    more = [f"env.vectorization={way}", "env.num_envs=2", f"+env.kwargs.where={where}", "tracking.evaluate_every=0"]
    code, out, errors = here(train, *world("Exiting", *more, f"run.dir={tmp_path}/run"))
    assert "Traceback" not in out + errors
    if where == "close":
        assert code == 0 and json.loads((tmp_path / "run/result.json").read_text())["evaluation"]["episodes"] == 2
    else:
        assert code in (1, 2), out + errors
        assert (len(errors.strip().splitlines()) == 1 and "Exit" in errors) or "died" in errors, errors
        assert not (tmp_path / "run/result.json").exists()


# Environments that hang


def descendants(process):
    return [p for p in psutil.Process(process.pid).children(recursive=True) if "resource_tracker" not in
            " ".join(p.cmdline())]  # fmt: skip


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("way", ["env.vectorization=async", "execution.actor=process"])
def test_workers_that_hang_end_with_the_run(tmp_path, way, end):
    process = started(*world("Hanging", way, f"run.dir={tmp_path}/run", "tracking.evaluate_every=0"))
    try:
        wait_until((tmp_path / "run/config.yaml").exists)
        workers = descendants(process)
        assert workers
        time.sleep(1.0)  # by now the environment hangs
        process.send_signal(end)
        if end is signal.SIGTERM:
            time.sleep(0.5)
            process.send_signal(end)
        assert process.wait(10) in (128 + end, -end)
        _, left = psutil.wait_procs(workers, 5)
        assert not left
    finally:
        process.kill()


# Signals before a run begins


def test_an_interruption_before_the_run_begins_is_a_sentence(tmp_path):
    process = started(*SHORT, f"run.dir={tmp_path}/run")
    assert process.stdout is not None
    assert "loading PyTorch" in process.stdout.readline()
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=100)
    assert process.returncode == 130
    assert "Traceback" not in said and said.count("\n") == 1


def test_an_interruption_while_workers_start_is_answered_at_once(tmp_path):
    process = started(*world("Plain", "env.vectorization=async", "env.num_envs=8", f"run.dir={tmp_path}/run"))
    wait_until(lambda: len(descendants(process)) >= 1)
    workers = descendants(process)
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert time.monotonic() - begun < 20  # workers take several seconds each to begin
    assert process.returncode == 130 and "Traceback" not in said, said
    _, left = psutil.wait_procs(workers, 5)
    assert not left


def test_a_closed_terminal_ends_with_a_checkpoint(tmp_path):
    process = started("steps=1000000", "execution=eager", "tracking.log_every=100", f"run.dir={tmp_path}/run")
    wait_until(lambda: "mean return" in (tmp_path / "run/train.log").read_text(), 150)
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 128 + signal.SIGHUP
    assert Checkpoints(tmp_path / "run/checkpoints").load().counters["env_steps"] > 0


# Disks


def on_a_small_disk(size, tmp_path, command):
    """A command on a disk of `size` at tmp_path/disk, in a name space of its own; its output and exit code."""
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
        pytest.skip("no name spaces of one's own here")
    disk = tmp_path / "disk"
    disk.mkdir()
    script = f"mount -t tmpfs -o size={size} none {disk} && {command}"
    return subprocess.run(["unshare", "-rm", "sh", "-c", script], cwd=HERE, capture_output=True, text=True,
                          check=False, timeout=200)  # fmt: skip


def test_a_memory_in_a_file_that_the_disk_cannot_hold_is_refused_before_the_run(tmp_path):
    """As where another fills the disk between the plan and the file: the plan is made to see a larger one."""
    program = (
        "import shutil, sys; shutil.disk_usage = lambda path: type('', (), {'free': 10**12}); "
        "sys.argv = ['train', *sys.argv[1:]]; from dqn import train; train.main()"
    )
    done = on_a_small_disk(
        "4m", tmp_path,
        f"{sys.executable} -c \"{program}\" {' '.join(SHORT)} replay.device=memmap replay.capacity=1000000 "
        f"run.dir={tmp_path}/disk/run",
    )  # fmt: skip
    assert done.returncode == 2, done.stdout + done.stderr
    assert "has no room for" in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_a_full_disk_ends_a_run_with_one_sentence_and_a_checkpoint_that_loads(tmp_path):
    done = on_a_small_disk(
        "6m", tmp_path,
        f"{sys.executable} -m dqn.train steps=30000 execution=eager tracking.checkpoint_every=2000 "
        f"tracking.evaluate_every=0 learning_starts=100000 run.dir={tmp_path}/disk/run; code=$?; "
        f"rm -f {tmp_path}/disk/run/checkpoints/*.tmp; cp -r {tmp_path}/disk/run {tmp_path}/saved; exit $code",
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and "/checkpoints/" in last and "No space left" in last
    assert Checkpoints(tmp_path / "saved/checkpoints").load().counters["env_steps"] >= 2000


def test_a_link_where_a_memory_would_lie_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/replay.obs").symlink_to(victim)
    code, _, errors = here(train, *SHORT, "replay.device=memmap", f"run.dir={tmp_path}/run")
    assert code == 0, errors
    assert victim.read_text() == "precious"


def test_a_run_directory_that_is_removed_is_named(tmp_path):
    process = started("steps=1000000", "execution=eager", f"run.dir={tmp_path}/run", "tracking.checkpoint_every=3000")
    wait_until((tmp_path / "run/config.yaml").exists)
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    (tmp_path / "run").write_text("in its place")
    said, _ = process.communicate(timeout=60)
    assert process.returncode in (1, 2)
    last = said.strip().splitlines()[-1]
    assert "Traceback" not in said and last.startswith("error: ") and f"{tmp_path}/run" in last and "b'" not in last


# Where and how long evaluations play


def test_a_single_instance_trains_and_is_evaluated_in_turn(tmp_path):
    code, out, errors = here(train, *world("OneInstance", f"run.dir={tmp_path}/run"))
    assert code == 0, errors
    assert "Set tracking.evaluate_in=training" in out
    assert json.loads((tmp_path / "run/result.json").read_text())["evaluation"]["returns"] == [10.0, 10.0]
    code, out, errors = here(evaluate, f"run={tmp_path}/run", "episodes=1", "trust=[hostile]")
    assert code == 0 and "10.00" in out, errors
    assert not hostile.OneInstance.opened


def test_a_single_instance_is_evaluated_where_it_trains(tmp_path):
    given = world("OneInstance", "tracking.evaluate_in=training", "tracking.evaluate_every=50")
    code, out, errors = here(train, *given, f"run.dir={tmp_path}/run")
    assert code == 0, errors
    assert out.count("evaluation of 10 episodes: 10.0") == 4 and "Set tracking.evaluate_in" not in out


def test_evaluations_where_it_trains_leave_a_resume_exact(tmp_path):
    given = ["env=cartpole", "steps=900", "learning_starts=100", "tracking.evaluate_in=training",
             "tracking.evaluate_every=200", "tracking.final_episodes=1", "torso.hidden=[8]"]  # fmt: skip
    code, _, errors = here(train, *given, f"run.dir={tmp_path}/whole")
    assert code == 0, errors
    for steps in (450, 900):
        where = [f"run.dir={tmp_path}/part"] if steps == 450 else [f"resume={tmp_path}/part"]
        code, _, errors = here(train, *(given if steps == 450 else []), f"steps={steps}", *where)
        assert code == 0, errors
    hashes = [json.loads((tmp_path / name / "result.json").read_text())["parameter_hash"] for name in ("whole", "part")]
    assert hashes[0] == hashes[1]


def test_no_closing_evaluation_where_none_is_wanted(tmp_path):
    code, out, errors = here(train, *SHORT, "tracking.final_episodes=0", f"run.dir={tmp_path}/run")
    assert code == 0, errors
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["evaluation"] is None and result["env_steps"] == 200
    assert result["training"]["episodes"] > 0 and result["training"]["return"] > 0
    assert "Evaluating" not in out


def test_what_is_known_is_written_before_a_closing_evaluation_that_fails(tmp_path):
    given = world("Hanging", "+env.kwargs.at=1000000", "steps=60", f"run.dir={tmp_path}/run")
    made = hostile.Hanging.__init__
    try:
        count = []

        def fails_later(self, at):
            count.append(self)
            if len(count) > 1:
                raise OSError("no licence left")
            made(self, at)

        hostile.Hanging.__init__ = fails_later
        code, _, errors = here(train, *given, "tracking.evaluate_every=0")
    finally:
        hostile.Hanging.__init__ = made
    assert code == 2 and "no licence left" in errors
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["env_steps"] == 60 and result["evaluation"] is None
    code, _out, errors = here(train, f"resume={tmp_path}/run", "trust=[hostile]")  # which makes up for it
    assert code == 0, errors
    assert json.loads((tmp_path / "run/result.json").read_text())["evaluation"]["mean"] == 10.0


def test_what_closing_an_environment_ends_for_all_does_not_end_training(tmp_path):
    given = world("SharedLibrary", "tracking.evaluate_every=50", "tracking.evaluate_episodes=1")
    code, out, errors = here(train, *given, f"run.dir={tmp_path}/run")
    assert code == 0, errors
    assert out.count("evaluation of 1 episodes: 10.0") == 4


def test_an_environment_without_a_limit_is_evaluated_for_a_while(tmp_path):
    begun = time.monotonic()
    code, out, errors = here(train, *world("Endless", f"run.dir={tmp_path}/run", "tracking.evaluate_every=0"))
    assert code == 0, errors
    assert "hostile/Endless-v0 has no time limit" in out
    assert "2 of 2 evaluation episodes were cut after 2,000 decisions" in out
    assert json.loads((tmp_path / "run/result.json").read_text())["evaluation"]["lengths"] == [2000, 2000]
    code, out, _ = here(evaluate, f"run={tmp_path}/run", "episodes=2", "trust=[hostile]")
    assert "cut after 2,000 decisions" in out
    assert time.monotonic() - begun < 30


def test_a_run_is_loaded_where_its_environment_is_not_installed(tmp_path):
    (tmp_path / "gone_soon.py").write_text(
        "import gymnasium\nfrom gymnasium.envs.classic_control import CartPoleEnv\n"
        "gymnasium.register('GoneSoon-v0', CartPoleEnv, max_episode_steps=20)\n"
    )
    given = ["env=gym", "env.id=GoneSoon-v0", "env.imports=[gone_soon]", *SHORT]
    command = [sys.executable, "-m", "dqn.train", *given, "run.dir=run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (tmp_path / "gone_soon.py").unlink()
    program = (
        "import dqn, numpy as np; agent = dqn.load('run', trust=['gone_soon']); "
        "print(agent.act(np.zeros(4, np.float32)), agent.q(np.zeros((3, 4), np.float32)).shape)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split(maxsplit=1)[0] in "01" and "(3, 2)" in done.stdout
    done = subprocess.run([sys.executable, "-m", "dqn.evaluate", "run=run", "trust=[gone_soon]"], cwd=tmp_path,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 2 and "gone_soon" in done.stderr and len(done.stderr.strip().splitlines()) == 1
