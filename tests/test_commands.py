"""What one types: names, sweeps, paths that look like numbers, streams without every letter, other systems."""

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import here
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import dqn
from dqn import evaluate, report, train
from dqn.config.cli import ALIASES, CHOICES, CONF
from dqn.errors import UsageError
from dqn.resources import free_memory

HERE = Path(__file__).parent
SHORT = ["steps=60", "learning_starts=20", "tracking.final_episodes=1", "tracking.evaluate_episodes=1",
         "execution=eager", "torso.hidden=[8]", "tuned.batch_size=8"]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run."""
    directory = tmp_path_factory.mktemp("runs") / "one"
    code, _, errors = here(train, *SHORT, f"run.dir={directory}")
    assert code == 0, errors
    return directory


# Names


@pytest.mark.parametrize(("typed", "meant"), ALIASES.items())
def test_what_others_call_an_option_is_understood(typed, meant):
    from dqn.config.cli import _known_names, nearest

    known = _known_names()
    if meant not in known:  # an option of another choice
        assert any((CONF / meant.partition(".")[0]).glob("*.yaml")) or meant == "init_from"
    elif typed not in known:
        assert nearest(typed, known) == f" (did you mean {meant}?)"


@pytest.mark.parametrize(
    "name", ["train", "evaluate", "report", "export", "record", "pack", "tune", "doctor", "generate"]
)
def test_every_verb_says_its_version_and_how_it_is_used(name):
    verb = import_module(f"dqn.{name}")
    assert here(verb, "--version")[:2] == (0, f"dqn {dqn.__version__}\n")
    code, out, _ = here(verb, "--help")
    assert code == 0 and f"dqn.{name}" in out


def test_what_others_call_a_choice_is_there():
    for (group, _), meant in CHOICES.items():
        assert (CONF / group / f"{meant}.yaml").is_file(), meant


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("lr=1e-3", "did you mean optimizer.lr?"),
        ("total_timesteps=1000", "did you mean steps?"),
        ("algorithm=ddqn", "did you mean double_dqn?"),
        ("algorithm=QR-DQN", "did you mean qr_dqn?"),
        ("env=Maze-v0", "write env=gym env.id=Maze-v0"),
        ("env=ALE/Pong-v5", "write env=gym env.id=ALE/Pong-v5"),
        ("+experiment=cql_cartpole", "without a plus: experiment=cql_cartpole"),
        ("~torso", "an option cannot be removed"),
        ("~env.autoreset", "an option cannot be removed"),
        ("algorithm=1", "algorithm is chosen by its name: choose one of btr"),
        ("tuned=1", "tuned is chosen by its name"),
        ("backup=true", "backup is chosen by its name"),
        ("torso=null", "torso is chosen by its name"),
        ("+terms.a={}", "terms must be parts by name"),
        ("tuned.v_max=[-1]", "tuned.v_max must be a number, got [-1]"),
        ("tuned.samples=1e18", "tuned.samples must be a whole number"),
        ("n_step=2147483648", "more than the replay memory keeps"),
        ("env.num_envs=100000", "env.num_envs must be a whole number ≥ 1 and ≤ 10,000"),
        ("env.action_masks=none", "did you mean env.action_mask?"),
        ("device=mps", "device=mps is not supported"),
        ("run.dir=null", "run.dir=PATH"),
        ("init_from=/nowhere", "There is no checkpoint in /nowhere"),
        ("trust=[os]", "trust= goes with resume=RUN"),
    ],
)
def test_a_sentence_says_what_to_type(tmp_path, typed, said):
    more = [] if typed.startswith("run.dir") else [f"run.dir={tmp_path}/run"]
    code, _, errors = here(train, typed, *more)
    assert code == 2
    assert said in errors and len(errors.strip().splitlines()) == 1, errors


def test_a_tuned_number_that_nothing_reads_is_said(tmp_path):
    _, out, _ = here(train, *SHORT, "tuned.quantiles=7", "optimizer.lr=1e-3", "tuned.lr=1e-2", f"run.dir={tmp_path}/a")
    assert "tuned.quantiles has no effect" in out and "tuned.lr has no effect" in out
    assert "tuned.batch_size has no effect" not in out
    _, out, _ = here(train, *SHORT, "head=quantile", "tuned.quantiles=7", f"run.dir={tmp_path}/b")
    assert "has no effect" not in out


# Paths and streams


@pytest.mark.parametrize("name", ["001", "1e3", "true", "null", "1.0", "[a]"])
def test_a_path_is_no_number(tmp_path, run, name):
    (tmp_path / name).symlink_to(run)
    code, out, errors = here(evaluate, f"run={name}", "episodes=1", at=tmp_path)
    assert code == 0, errors
    assert f"{name}/evaluation.json" in out or str(run) in out


@pytest.mark.parametrize("verb", ["dqn.evaluate", "dqn.report", "dqn.train"])
def test_a_stream_that_knows_ascii_alone_is_enough(tmp_path, run, verb):
    words = {"dqn.evaluate": [f"run={run}", "episodes=1"], "dqn.report": [str(run)],
             "dqn.train": [*SHORT, "env=chain", "algorithm=tabular", f"run.dir={tmp_path}/run"]}[verb]  # fmt: skip
    words = [word for word in words if not (verb == "dqn.train" and word.startswith(("torso", "tuned.batch")))]
    (run / "evaluation.json").unlink(missing_ok=True)
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-m", verb, *words], cwd=HERE, env=environment, capture_output=True,
                          check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stdout + done.stderr and b"Logging error" not in done.stderr
    done.stdout.decode("ascii")
    if verb == "dqn.evaluate":
        assert (run / "evaluation.json").is_file()


# What a run and a sweep are called


def test_algorithm_environment_and_parts_are_named_in_results_and_hparams(run):
    result = json.loads((run / "result.json").read_text())
    assert (result["algorithm"], result["env"], result["seed"]) == ("dqn", "CartPole-v1", 0)
    assert result["parts"]["torso"] == "MLP" and result["parts"]["backup"] == "q_learning"
    assert "${" not in "".join(line for line in (run / "config.yaml").read_text().splitlines() if "hydra" in line)
    assert "algorithm: dqn" in (run / "config.yaml").read_text()
    events = EventAccumulator(str(run)).Reload()
    (start,) = (data for tag, data in events.summary_metadata.items() if tag == "_hparams_/session_start_info")
    text = start.plugin_data.content.decode("latin1")
    for word in ("algorithm", "CartPole-v1", "q_learning", "Expected", "MLP"):
        assert word in text


def test_a_sweep_lies_where_run_dir_says_and_each_job_knows_its_own(tmp_path):
    command = ["-m", "seed=0,1", "gamma=0.9", *SHORT, f"run.dir={tmp_path}/many"]
    done = subprocess.run([sys.executable, "-m", "dqn.train", *command], cwd=HERE, capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    folders = sorted(path.name for path in (tmp_path / "many").iterdir() if path.is_dir())
    assert folders == ["0-seed=0", "1-seed=1"]
    for name in folders:
        assert f"dir: {tmp_path}/many/{name}" in (tmp_path / "many" / name / "config.yaml").read_text()
    assert "Job 1 of 2: " in done.stdout and "Job 2 of 2: " in done.stdout
    assert "  torso " not in done.stdout  # a card for each job would hide the rest
    assert "IQM" in done.stdout and max(map(len, done.stdout.splitlines())) < 200


def test_a_run_says_what_was_typed_and_is_repeated(tmp_path, run):
    """The same bits in a new directory; parts and untrusted code as beside resume=."""
    assert yaml.safe_load((run / ".hydra/overrides.yaml").read_text())[: len(SHORT)] == SHORT
    assert (run / ".hydra/config.yaml").read_text() == (run / "config.yaml").read_text()
    assert "launcher" in yaml.safe_load((run / ".hydra/hydra.yaml").read_text())["hydra"]
    same, other = tmp_path / "same", tmp_path / "it's another"
    for words in ([f"run.dir={same}"], [f'run.dir="{other}"', "seed=1", "tags=[b]"]):
        code, _, errors = here(train, f"repeat={run}", *words)
        assert code == 0, errors
    hashes = [json.loads((path / "result.json").read_text())["parameter_hash"] for path in (run, same, other)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert json.loads((other / "result.json").read_text())["tags"] == ["b"]
    code, _, errors = here(train, f"repeat={run}", f"run.dir={same}")
    assert code == 2 and "already holds a run" in errors


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["env=chain"], "a repeated run keeps its parts"),
        (["resume=RUN"], "leave out one of them"),
        (["-m", "seed=0,1"], "begins one run, -m begins many"),
        (["no_such=1"], "no_such is not an option"),
    ],
)
def test_what_cannot_be_changed_in_a_repeated_run_is_said(tmp_path, run, more, says):
    code, _, errors = here(train, f"repeat={run}", *(word.replace("RUN", str(run)) for word in more))
    assert code == 2 and says in errors, errors


def test_a_debug_run_does_everything_in_seconds(tmp_path):
    code, _, errors = here(
        train, "debug=tiny", "algorithm=rainbow", "tags=[a,b]", "task_name=try", f"run.dir={tmp_path}/r"
    )
    assert code == 0, errors
    result = json.loads((tmp_path / "r/result.json").read_text())
    assert result["task_name"] == "try" and result["tags"] == ["a", "b"] and result["updates"] > 0
    assert len(result["evaluation"]["returns"]) == 2 and [*(tmp_path / "r/checkpoints").glob("*.json")]


def test_a_sweep_does_not_resume():
    code, _, errors = here(train, "-m", "resume=runs/any", "seed=0,1")
    assert code == 2 and "resume= continues one run, -m begins many" in errors


def test_a_report_of_unlike_runs_fits_a_line(tmp_path, run):
    others = {"b": ["algorithm=rainbow"], "c": ["algorithm=qr_dqn", "seed=3"], "d": ["env=chain", "algorithm=tabular"]}
    for name, words in others.items():
        given = [w for w in SHORT if name != "d" or not w.startswith(("torso", "tuned.batch"))]
        code, _, errors = here(train, *given, *words, f"run.dir={tmp_path}/{name}")
        assert code == 0, errors
    code, out, errors = here(report, run, *(tmp_path / name for name in others))
    assert code == 0, errors
    lines = out.splitlines()
    assert max(map(len, lines)) <= 200
    assert lines[0].split()[:2] == ["algorithm", "env"]
    assert "They differ in" in out


def test_a_report_names_what_is_wrong_and_shows_the_rest(tmp_path, run):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/result.json").write_text("{")
    (tmp_path / "broken/config.yaml").write_text("seed: 1")
    code, out, errors = here(report, run, tmp_path / "broken", tmp_path / "none")
    assert code == 1
    assert run.name in out and "broken/result.json is damaged" in errors and "no finished run lies in" in errors


# Weights of another run


def test_a_new_run_begins_with_the_weights_of_another(tmp_path, run):
    longer = ["env.max_episode_steps=50", "optimizer.lr=0", f"init_from={run}", f"run.dir={tmp_path}/next"]
    code, _, errors = here(train, *SHORT, *longer)
    assert code == 0, errors
    before, after = dqn.load(str(run)), dqn.load(str(tmp_path / "next"))
    obs = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    assert np.array_equal(before.q(obs), after.q(obs))
    code, _, errors = here(train, f"resume={tmp_path}/next", "steps=80")
    assert code == 0, errors
    code, _, errors = here(train, *SHORT, f"init_from={run}", "torso.hidden=[9]", f"run.dir={tmp_path}/other")
    assert code == 2 and "has a network of its own" in errors


def test_the_process_that_acts_begins_with_them_too(tmp_path, run):
    given = [*SHORT, f"init_from={run}", "tuned.epsilon_end=0", "tuned.epsilon_steps=1", "learning_starts=1000",
             "exploration.epsilon.start=0", "tracking.evaluate_every=0"]  # fmt: skip
    played = {}
    for actor in ("local", "process"):
        where = tmp_path / actor
        code, _, errors = here(train, *given, f"execution.actor={actor}", f"run.dir={where}")
        assert code == 0, errors
        played[actor] = json.loads((where / "result.json").read_text())["training"]
    assert played["local"] == played["process"]


# An agent in one's own program


def test_an_agent_takes_batches_and_says_what_it_cannot_take(run):
    agent, obs = dqn.load(str(run)), np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    actions = agent.act(obs)
    assert actions.shape == (5,) and [agent.act(one) for one in obs] == actions.tolist()
    assert np.allclose(agent.q(obs), [agent.q(one) for one in obs], atol=1e-6)
    assert agent.act(obs[0].astype(np.float64).tolist()) == actions[0]
    for wrong in (np.zeros(3), np.zeros((2, 2, 4)), "north", [[1, 2], [3]], None, {"a": 1}):
        with pytest.raises(UsageError, match=r"observation must"):
            agent.act(wrong)
    with pytest.raises(UsageError, match="holds NaN"):
        agent.q(np.full(4, np.nan))


def test_an_agent_that_remembers_says_how_many_it_remembers(tmp_path):
    code, _, errors = here(train, "algorithm=drqn", *[w for w in SHORT if "batch" not in w], "replay.length=4",
                           f"run.dir={tmp_path}/run")  # fmt: skip
    assert code == 0, errors
    agent = dqn.load(str(tmp_path / "run"))
    with pytest.raises(UsageError, match=r"agent.begin\(3\)"):
        agent.act(np.zeros((3, 4)))
    agent.begin(3)
    assert agent.act(np.zeros((3, 4))).shape == (3,)


# Other systems


LACKING = """
import builtins, os, signal, sys
import gymnasium, psutil, scipy.stats, torch, torch.utils.tensorboard  # other packages know their systems
taken = builtins.__import__
def lacks(name, *rest, **more):
    if name.split(".")[0] in ("resource", "fcntl"):
        raise ImportError(f"No module named {name!r}")
    return taken(name, *rest, **more)
builtins.__import__ = lacks
for owner, names in ((os, ("sched_getaffinity", "posix_fallocate", "O_NOFOLLOW")),
                     (signal, ("SIGHUP", "sigtimedwait"))):
    for name in names:
        if hasattr(owner, name):
            delattr(owner, name)
def sysconf(name):
    raise ValueError("unrecognized configuration name")
os.sysconf = sysconf
sys.platform = "darwin"
sys.argv = ["dqn-train", *sys.argv[1:]]
from dqn import train
train.main()
"""


@pytest.mark.parametrize("more", [[], ["replay.device=memmap"], ["env.vectorization=async", "env.num_envs=2"]])
def test_a_system_without_what_linux_has_alone_is_enough(tmp_path, more):
    (tmp_path / "lacking.py").write_text(f"if __name__ == '__main__':\n{LACKING.replace(chr(10), chr(10) + '    ')}")
    done = subprocess.run(
        [sys.executable, tmp_path / "lacking.py", *SHORT, *more, f"run.dir={tmp_path}/run"],
        cwd=HERE, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(HERE.parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/result.json").is_file()


def test_a_containers_limit_counts(tmp_path, monkeypatch):
    group = tmp_path / "a"
    group.mkdir()
    for folder, limit in ((tmp_path, "max"), (group, str(2**28))):
        (folder / "memory.max").write_text(limit)
        (folder / "memory.current").write_text(str(2**27))
        (folder / "memory.stat").write_text(f"anon 5\ninactive_file {2**20}\n")
    monkeypatch.setattr("dqn.resources.CGROUPS", tmp_path)
    monkeypatch.setattr("dqn.resources._groups", lambda: iter((group, tmp_path)))
    assert free_memory() == 2**27 + 2**20
    code, _, errors = here(train, "replay.capacity=10000000", f"run.dir={tmp_path}/run")
    assert code == 2 and "0.1 GiB are free" in errors


# Anything at all


VALUES = st.sampled_from([
    "0", "1", "-1", "2", "3", "0.5", "1e3", "1e18", "-3.5", "nan", "inf", "-inf", "null", "true", "false", "abc", "''",
    "[]", "[1]", "[a]", "[1.5,2]", "{}", "{a:1}", "auto", "cpu", "???", "${seed}", "${nowhere}", "9223372036854775808",
])  # fmt: skip


def every_name():
    from hydra import compose, initialize_config_dir

    from dqn.config.cli import option_names

    with initialize_config_dir(str(CONF), version_base="1.3"):
        return sorted({*option_names(compose("config", overrides=["run.dir=x", "algorithm=rainbow"])),
                       *option_names(compose("config", overrides=["run.dir=x"]))})  # fmt: skip


NAMES = every_name()
GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir())
OVERRIDE = st.one_of(
    st.builds("{}={}".format, st.sampled_from(NAMES), VALUES),
    st.builds("{}={}".format, st.sampled_from(GROUPS), st.one_of(VALUES, st.sampled_from(
        sorted(path.stem for path in CONF.rglob("*.yaml"))))),
    st.builds("{}{}".format, st.sampled_from(["~", "+", "++"]), st.sampled_from(NAMES)),
    st.builds("+{}.new={}".format, st.sampled_from(NAMES), VALUES),
)  # fmt: skip
BOUNDED = ["steps=40", "learning_starts=20", "tracking.final_episodes=1", "tracking.evaluate_episodes=1",
           "tracking.evaluate_cap=50", "replay.capacity=500"]  # fmt: skip


def answered(tmp_path_factory, overrides):
    """A command line ends well, or with one sentence."""
    directory = tmp_path_factory.mktemp("any")
    named = {override.partition("=")[0].lstrip("+~") for override in overrides}
    base = [word for word in BOUNDED if word.partition("=")[0] not in named]
    place = [] if named & {"run.dir", "run"} else [f"run.dir={directory}/run"]
    code, out, errors = here(train, *base, *overrides, *place, at=directory)
    assert code in (0, 1, 2), (overrides, code)
    assert "Traceback" not in out + errors, overrides
    if code:
        assert len(errors.strip().splitlines()) == 1 and errors.startswith("error: "), (overrides, errors)
    changed = [o for o in overrides if "=" in o and o.lstrip("+").startswith("tuned.")]
    if code == 0:
        for override in changed:  # it changes a part, or has no effect and that is said
            name = override.partition("=")[0].lstrip("+")
            text = (directory / "run/config.yaml").read_text() if (directory / "run").is_dir() else ""
            assert f"${{{name}}}" in text or f"{name} has no effect" in out or not text, override


SKIPPED = ("env=atari", "env.vectorization=async", "env=lunarlander", "tuned=lunarlander")


def any_command(examples, number):
    @seed(number)
    @settings(max_examples=examples, deadline=None, database=None,
              suppress_health_check=[*HealthCheck])  # fmt: skip
    @given(overrides=st.lists(OVERRIDE.filter(lambda o: not o.startswith(SKIPPED)), min_size=1, max_size=3))
    def test(tmp_path_factory, overrides):
        answered(tmp_path_factory, overrides)

    return test


test_any_command_line_is_answered = any_command(25, 0)
test_many_command_lines_are_answered = pytest.mark.slow(pytest.mark.timeout(3600)(any_command(500, 1)))
