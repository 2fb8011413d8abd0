"""Training from Python: the same run as the command line's, for any form of environment, and nothing left after."""

import copy
import inspect
import json
import logging
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
import worlds
from conftest import here
from gymnasium.spaces import Box, Discrete
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.version import VersionBase
from omegaconf import OmegaConf

import dqn
import dqn.agent
from dqn import api, evaluate, report, train
from dqn.config.cli import CONF

ROOT = Path(__file__).parent.parent
SMALL = {
    "execution": "eager", "learning_starts": 100, "torso.hidden": [8], "env.num_envs": 1,
    "tracking": {"evaluate_every": 0, "final_episodes": 2, "log_every": 100, "checkpoint_every": 0},
}  # fmt: skip
COMMAND = [
    "execution=eager", "learning_starts=100", "torso.hidden=[8]", "env.num_envs=1", "tracking.evaluate_every=0",
    "tracking.final_episodes=2", "tracking.log_every=100", "tracking.checkpoint_every=0",
]  # fmt: skip


class Corridor(gymnasium.Env):
    """A class that can be imported: ten steps, the observation is drawn."""

    observation_space, action_space = Box(-1, 1, (2,), np.float32), Discrete(2)

    def __init__(self, length=10):
        self.length, self.t, self.steps, self.closed = length, 0, 0, False

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._obs(), {}

    def _obs(self):
        return self.np_random.uniform(-1, 1, 2).astype(np.float32)

    def step(self, action):
        self.t, self.steps = self.t + 1, self.steps + 1
        return self._obs(), float(action), False, self.t >= self.length, {}

    def close(self):
        self.closed = True


def local_class():
    """A class as one of a notebook: no import finds it."""

    class Corridor2(Corridor):
        pass

    return Corridor2


def small(env="CartPole-v1", directory=None, more=None, **options):
    """A tiny run; nothing of it is kept unless a directory is named."""
    overrides = dict(api._flat(SMALL)) | dict(api._flat(more or {}))
    return dqn.train(env, directory=directory, overrides=overrides, **{"steps": 300, "progress": False, **options})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of CartPole from Python, and its agent."""
    directory = tmp_path_factory.mktemp("python") / "run"
    return directory, small(directory=directory)


def state_of_the_process():
    """What a training might leave after."""
    log = logging.getLogger("dqn")
    return {
        "hydra": (GlobalHydra.instance().hydra, HydraConfig.instance().cfg, VersionBase.instance().getbase()),
        "stored": sorted(ConfigStore.instance().repo),
        "threads": torch.get_num_threads(),
        "precision": torch.get_float32_matmul_precision(),
        "torch": torch.get_rng_state().tolist(),
        "numpy": np.random.get_state()[1].tolist(),
        "python": random.getstate(),
        "signals": [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)],
        "excepthook": threading.excepthook,
        "warnings": list(warnings.filters),
        "log": (list(log.handlers), log.level, log.propagate),
        "path": list(sys.path),
        "environ": dict(os.environ),
        "directory": os.getcwd(),
        "environments": sorted(gymnasium.registry),
        "grad": torch.is_grad_enabled(),
    }


def test_python_and_the_command_line_make_the_same_run(run, tmp_path):
    directory, agent = run
    code, _, errors = here(train, "env=gym", "env.id=CartPole-v1", "steps=300", *COMMAND, f"run.dir={tmp_path}/other")
    assert code == 0, errors
    mine, theirs = (json.loads((path / "result.json").read_text()) for path in (directory, tmp_path / "other"))
    assert mine["parameter_hash"] == theirs["parameter_hash"] == agent.parameters_hash
    assert mine["evaluation"] == theirs["evaluation"] == agent.result["evaluation"]
    configurations = [OmegaConf.load(path / "config.yaml") for path in (directory, tmp_path / "other")]
    for cfg in configurations:
        cfg.run.dir = "the same"
    assert configurations[0] == configurations[1]
    kinds = [{p.name.split(".")[0] for p in path.iterdir()} for path in (directory, tmp_path / "other")]
    assert kinds[0] == kinds[1]


def test_a_training_leaves_the_process_as_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small("worlds:Odd")  # imports that stay are not meant
    torch.set_num_threads(2)
    logging.getLogger("dqn").addHandler(handler := logging.NullHandler())
    try:
        before = state_of_the_process()
        hashes = {small(Corridor, seed=3).parameters_hash for _ in range(2)}
        small().evaluate(2, progress=False)
        with pytest.raises(dqn.UsageError):
            small("Nothing-v7")
        after = state_of_the_process()
    finally:
        torch.set_num_threads(1)
        logging.getLogger("dqn").removeHandler(handler)
    assert len(hashes) == 1
    for name, value in before.items():
        assert after[name] == value, name
    assert not [*tmp_path.iterdir()]  # directory=None


def test_a_program_that_uses_hydra_goes_on_with_its_own(tmp_path):
    (tmp_path / "mine.yaml").write_text("a: 1\n")
    with initialize_config_dir(str(tmp_path), version_base="1.2"):
        small()
        assert compose("mine") == {"a": 1}
        assert str(VersionBase.instance().getbase()) == "1.2"


FORMS = {
    "class": (lambda: Corridor, "test_python:Corridor"),
    "its name": (lambda: "test_python:Corridor", "test_python:Corridor"),
    "function": (lambda: make_corridor, "test_python:make_corridor"),
    "lambda": (lambda: lambda length=10: Corridor(length), "from_python/lambda"),
    "class of a notebook": (local_class, "from_python/Corridor2"),
}


def make_corridor(length=10):
    """A function that can be imported."""
    return Corridor(length)


@pytest.fixture(scope="module")
def forms(tmp_path_factory):
    """forms(name) → the directory of a run with the environment in this form, what was passed, and the agent."""
    made = {}

    def get(name):
        if name not in made:
            directory, env = tmp_path_factory.mktemp("form") / "run", FORMS[name][0]()
            agent = small(env, directory, {"env.kwargs.length": 7, "env.max_episode_steps": 9})
            made[name] = directory, env, agent
        return made[name]

    return get


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_environment_is_the_same_run(forms, name):
    directory, _, agent = forms(name)
    assert agent.parameters_hash == forms("class")[2].parameters_hash
    assert agent.result["evaluation"] == forms("class")[2].result["evaluation"]
    assert set(agent.result["evaluation"]["lengths"]) == {7}
    assert OmegaConf.load(directory / "config.yaml").env.id == FORMS[name][1]
    assert agent.result["env"] == FORMS[name][1]


@pytest.mark.parametrize("name", FORMS)
def test_what_is_recorded_is_found_again_or_asked_for(forms, name):
    directory, env, agent = forms(name)
    expected = agent.evaluate(3, progress=False)
    command = f"run={directory}", "episodes=3"
    code, _, errors = here(evaluate, *command)
    assert code == 2
    if name in ("lambda", "class of a notebook"):
        assert "pass it again" in errors and errors.count("\n") == 1
        assert "pass it again" in here(train, f"resume={directory}", "steps=400")[2]
        loaded = dqn.load(directory)
        assert loaded.act(np.zeros(2, np.float32)) in (0, 1)  # acting needs no environment
        for asked in (lambda: loaded.evaluate(2), loaded.make):
            with pytest.raises(dqn.UsageError, match="pass it again"):
                asked()
    else:
        assert "trust=[test_python]" in errors
        assert here(evaluate, *command, "trust=[test_python]")[0] == 0
        found = json.loads((directory / "evaluation.json").read_text())
        assert found["returns"] == expected["returns"]
        assert dqn.load(directory, trust="test_python").evaluate(3, progress=False) == expected
    loaded = dqn.load(directory, env=env if not isinstance(env, str) else Corridor)
    assert loaded.evaluate(3, progress=False) == expected
    assert loaded.make().unwrapped.length == 7


@pytest.mark.parametrize("name", ["class", "lambda"])
def test_a_run_goes_on_from_python(forms, name, tmp_path):
    _, env, _ = forms(name)
    changed = {"env.kwargs.length": 7, "lr_schedule.steps": 300}
    small(env, tmp_path / "cut", changed, steps=150)
    # One that only this program has is passed again; the other is trusted by its name.
    again = {"env": env} if name == "lambda" else {"trust": ["test_python"]}
    agent = dqn.train(resume=tmp_path / "cut", steps=300, progress=False, **again)
    assert agent.parameters_hash == small(env, None, changed).parameters_hash
    steps = [row["env_steps"] for row in agent.progress]
    assert steps == sorted({*steps}) and steps[-1] == 300


def test_an_environment_that_exists_is_played_in_and_stays_the_callers(tmp_path):
    env = Corridor()
    spec = env.spec
    agent = small(env, tmp_path / "run")
    assert agent.result["env"] == "from_python/Corridor" and env.steps > 300
    assert not env.closed and env.spec is spec
    assert agent.evaluate(2, progress=False)["lengths"] == [10, 10]
    assert not env.closed
    for more, word in (({"env.num_envs": 2}, "num_envs=2"), ({"env.kwargs": {"length": 3}}, "env.kwargs.length")):
        with pytest.raises(dqn.UsageError, match=word):
            small(env, None, more)


def test_an_environment_of_gymnasium_is_recorded_by_its_id(tmp_path):
    made = gymnasium.make("CartPole-v1", max_episode_steps=20, sutton_barto_reward=True)
    small(made, tmp_path / "run")
    cfg = OmegaConf.load(tmp_path / "run/config.yaml")
    assert cfg.env.id == "CartPole-v1" and cfg.env.max_episode_steps == 20
    assert cfg.env.kwargs == {"sutton_barto_reward": True}
    assert cfg.tuned.for_env == "cartpole"  # its numbers are found by the id
    assert here(evaluate, f"run={tmp_path}/run", "episodes=2")[0] == 0
    wrapped = gymnasium.wrappers.TransformReward(gymnasium.make("CartPole-v1"), lambda r: -r)
    agent = small(wrapped, tmp_path / "wrapped")
    assert agent.result["env"] == "from_python/CartPoleEnv" and agent.result["evaluation"]["mean"] < 0


def test_a_package_that_registers_the_id_is_recorded():
    gymnasium.register("mine/Corridor-v0", entry_point="test_python:Corridor")
    try:
        arguments = api._choice(api.passed("mine/Corridor-v0"), [])
    finally:
        del gymnasium.registry["mine/Corridor-v0"]
    assert arguments == ["env=gym", "env.id='mine/Corridor-v0'", "env.imports=['test_python']"]
    assert api._choice(api.passed("tensor_catch"), []) == ["env=tensor_catch"]
    assert api._choice(api.passed("CartPole-v1"), []) == ["env=gym", "env.id='CartPole-v1'"]


@pytest.mark.slow
def test_workers_make_what_was_passed():
    agent = small(lambda: Corridor(4), None, {"env.vectorization": "async", "env.num_envs": 2}, steps=120)
    assert set(agent.result["evaluation"]["lengths"]) == {4}


def test_a_process_that_acts_cannot_be_given_an_object():
    with pytest.raises(dqn.UsageError, match=r"passed as an object: set execution\.actor=local"):
        small(lambda: Corridor(4), None, {"execution.actor": "process"})


REFUSED = {  # keyword arguments of Python, and the arguments of the command line whose sentence is wanted
    "unknown option": ({"optim.lrr": 1}, {}, ["optim.lrr=1"]),
    "another library's name": ({}, {"learning_rate": 1}, ["learning_rate=1"]),
    "range": ({}, {"gamma": 2}, ["gamma=2"]),
    "whole": ({}, {"steps": -1}, ["steps=-1"]),
    "recipe": ({}, {"algorithm": "ddqn"}, ["algorithm=ddqn"]),
    "device": ({}, {"device": "cuda:77"}, ["device=cuda:77"]),
    "pair": ({"lambda_": 0.5}, {}, ["lambda_=0.5"]),
    "part": ({"torso.hidden": [-3]}, {}, ["torso.hidden=[-3]"]),
    "no number": ({"optimizer.lr": "fast"}, {}, ["optimizer.lr=fast"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_errors_are_the_command_lines_sentences(name, tmp_path):
    overrides, options, arguments = REFUSED[name]
    with pytest.raises((dqn.UsageError, dqn.RunError)) as raised:
        dqn.train(overrides=overrides, directory=tmp_path / "python", progress=False, **options)
    code, _, errors = here(train, *arguments, f"run.dir={tmp_path}/command")
    assert code == 2
    assert errors == f"error: {raised.value}\n"


WRONG = {
    "no override": ({"overrides": ["steps"]}, "write option=value"),
    "flag": ({"overrides": ["-m", "seed=1"]}, "write option=value"),
    "sweep": ({"overrides": ["seed=1,2"]}, "seed"),
    "hydra": ({"overrides": ["hydra.run.dir=x"]}, "no option of a configuration"),
    "resume": ({"overrides": {"resume": "x"}}, "pass resume="),
    "twice": ({"steps": 10, "overrides": ["steps=20"]}, "steps is given twice"),
    "env twice": ({"env": "CartPole-v1", "overrides": ["env=chain"]}, "environment is given twice"),
    "object": ({"overrides": {"torso": object()}}, "torso cannot be"),
    "number as environment": ({"env": 3}, "env must be"),
    "vector": ({"env": gymnasium.make_vec("CartPole-v1", 2)}, "env.num_envs=N"),
    "returns nothing": ({"env": lambda: None}, "must inherit"),
    "no run": ({"resume": "nowhere"}, "is not a run's directory"),
    "raises": ({"env": lambda: worlds.nothing}, "cannot be made"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_python_alone_can_get_wrong_is_one_sentence(name, tmp_path):
    given, words = WRONG[name]
    with pytest.raises(dqn.UsageError) as raised:
        dqn.train(**{"directory": tmp_path / "run", "progress": False, **given})
    assert words in str(raised.value) and "\n" not in str(raised.value)


def test_overrides_may_be_a_list_or_a_dict():
    text = ["replay=prioritized", "optimizer.lr=0.001", "torso.hidden=[8,8]", "max_grad_norm=null",
            "+env.kwargs.sutton_barto_reward=true", "device='cpu'"]  # fmt: skip
    nested = {
        "replay": "prioritized", "optimizer": {"lr": np.float64(0.001)}, "torso.hidden": (8, 8), "max_grad_norm": None,
        "env": {"kwargs": {"sutton_barto_reward": True}}, "device": "cpu",
    }  # fmt: skip
    found = [api.composed("config", api._arguments(api._pairs({}, given)))[0] for given in (text, nested)]
    for cfg in found:
        cfg.run.dir = "the same"
    assert found[0] == found[1] and found[0].optimizer.lr == 0.001


def test_a_class_of_ones_own_may_be_a_part(tmp_path):
    agent = small(more={"torso": {"_target_": worlds.Dropped, "hidden": [8]}} if hasattr(worlds, "Dropped") else {})
    assert agent.parameters_hash


def test_a_callback_sees_numbers_and_changes_no_bit(run, tmp_path):
    _, agent = run
    seen = []

    def look(trainer, numbers):
        torch.rand(3), np.random.rand(3), random.random()
        numbers.clear() if numbers["env_steps"] == 100 else seen.append(copy.deepcopy(numbers))

    also = []
    more = {"tracking": {"evaluate_every": 150, "evaluate_episodes": 1, "checkpoint_every": 150}}
    plain = small(more=more)
    episode_info = small(more=more, callbacks=[look, lambda trainer, numbers: also.append(numbers["env_steps"])])
    assert plain.parameters_hash == episode_info.parameters_hash
    assert also == [0, 100, 150, 200, 300]
    by_steps = {numbers["env_steps"]: numbers for numbers in seen}
    assert "evaluation/return" in by_steps[0] and "evaluation/return" in by_steps[150]
    assert "checkpoint" in by_steps[150] and "learner/loss" in by_steps[200]
    rows = {row["env_steps"]: row for row in episode_info.progress}
    assert rows[200]["learner/loss"] == by_steps[200]["learner/loss"]
    assert agent.parameters_hash  # of other checkpoints, so of other episodes


def test_a_callback_may_end_the_run(tmp_path):
    agent = small(
        directory=tmp_path / "run", callbacks=[lambda trainer, numbers: np.bool_(numbers["env_steps"] >= 200)]
    )
    assert agent.result["env_steps"] == 200 and agent.result["evaluation"]["episodes"] == 2
    went_on = dqn.train(resume=tmp_path / "run", progress=False)
    assert went_on.parameters_hash == small().parameters_hash  # as if it had never ended


def test_a_callback_that_raises_ends_the_run_with_a_checkpoint(run, tmp_path):
    def fail(trainer, numbers):
        if numbers["env_steps"] == 200:
            raise ValueError("of the callback's own")

    with pytest.raises(ValueError, match="of the callback's own"):
        small(directory=tmp_path / "run", callbacks=[fail])
    assert dqn.train(resume=tmp_path / "run", progress=False).parameters_hash == run[1].parameters_hash


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_with_a_checkpoint_and_reaches_the_program(run, tmp_path, number):
    caught = []

    def ctrl_c(trainer, numbers):
        if numbers["env_steps"] == 200 and not trainer.stop:
            signal.raise_signal(number)

    usual = signal.signal(signal.SIGTERM, lambda *_: caught.append(number))  # pytest has one for SIGINT
    try:
        if number == signal.SIGINT:
            with pytest.raises(KeyboardInterrupt):
                small(directory=tmp_path / "run", callbacks=[ctrl_c])
        else:  # the program's own handler was called, and did not end it
            agent = small(directory=tmp_path / "run", callbacks=[ctrl_c])
            assert caught == [number] and agent.result is None and agent.counters["env_steps"] == 200
    finally:
        signal.signal(signal.SIGTERM, usual)
    assert dqn.train(resume=tmp_path / "run", progress=False).parameters_hash == run[1].parameters_hash


def test_a_second_interruption_raises_at_once(tmp_path):
    def twice(trainer, numbers):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("the second one raises")

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        small(directory=tmp_path / "run", callbacks=[twice])
    assert signal.getsignal(signal.SIGINT) is before


def test_one_run_at_a_time():
    with pytest.raises(dqn.UsageError, match="Another run"):
        small(callbacks=[lambda trainer, numbers: small()])
    hashes, threads = [], []
    threads = [threading.Thread(target=lambda: hashes.append(small().parameters_hash))]
    threads[0].start()
    threads[0].join()
    assert hashes == [small().parameters_hash]  # in a thread as in the program itself


def test_an_agent_is_saved_without_its_run(run, tmp_path):
    directory, agent = run
    before = sorted(p.name for p in directory.rglob("*"))
    agent.save(tmp_path / "agent")
    agent.save(tmp_path / "agent")  # again: it is replaced
    loaded = dqn.load(tmp_path / "agent")
    assert loaded.parameters_hash == agent.parameters_hash
    obs, _ = gymnasium.make("CartPole-v1").reset(seed=1)
    assert (loaded.q(obs) == agent.q(obs)).all() and loaded.act(obs) == agent.act(obs)
    assert loaded.evaluate(2, progress=False) == agent.evaluate(2, progress=False)
    with pytest.raises(dqn.UsageError, match="cannot be resumed"):
        dqn.train(resume=tmp_path / "agent")
    with pytest.raises(dqn.UsageError, match="holds a run"):
        agent.save(directory)
    assert sorted(p.name for p in directory.rglob("*")) == before
    fresh = small(more={"init_from": str(tmp_path / "agent"), "learning_starts": 299, "tracking.final_episodes": 0})
    assert fresh.result["evaluation"] is None
    code, _, errors = here(report, str(tmp_path / "agent"))
    assert "Traceback" not in errors, (code, errors)


def test_an_evaluation_is_repeatable_and_changes_nothing(run):
    _, agent = run
    first = agent.evaluate(3, progress=False)
    assert agent.evaluate(3, progress=False) == first and len(first["returns"]) == 3
    assert agent.evaluate(3, seed=5, progress=False)["returns"] != first["returns"]
    assert agent.evaluate(3, epsilon=1.0, progress=False)["epsilon"] == 1.0
    assert agent.parameters_hash == agent.result["parameter_hash"] and not agent.network.training
    for episodes in (0, 1.5, "3"):
        with pytest.raises(dqn.UsageError, match="episodes must be"):
            agent.evaluate(episodes)


def test_progress_is_a_table(run):
    directory, agent = run
    assert [row["env_steps"] for row in agent.progress] == [100, 200, 300]
    assert agent.progress == dqn.load(directory).progress
    assert agent.progress[-1]["episode/return"] > 0 and "learner/loss" in agent.progress[-1]
    assert all(isinstance(value, (int, float)) for row in agent.progress for value in row.values())


def test_a_link_in_a_strangers_run_is_not_followed(run, tmp_path):
    from dqn.tracking.logger import Table, read_table

    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / Table.FILE).symlink_to(victim)
    table = Table(tmp_path, 5)
    table.write({"a": 1.0}, 7)
    table.close()
    assert victim.read_text() == "precious" and read_table(tmp_path) == [{"env_steps": 7, "a": 1.0}]


def test_nothing_is_kept_where_no_directory_is_wanted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    agent = small()
    assert agent.directory is None and not [*tmp_path.iterdir()]
    assert agent.progress and agent.result["evaluation"] and agent.evaluate(1, progress=False)
    agent = dqn.train("CartPole-v1", steps=200, overrides=SMALL, progress=False)  # as the command line
    assert str(agent.directory).startswith(f"{tmp_path}/runs/dqn-CartPole-v1-seed0-")


@pytest.mark.parametrize("progress", [True, False])
def test_progress_is_shown_or_not(progress, capsys):
    small(progress=progress)
    out = capsys.readouterr()
    assert ("mean return of the last" in out.out) == progress and not out.err
    assert progress or not out.out


def section(name):
    """A section of the page about the code."""
    return (ROOT / "dqn" / "README.md").read_text().partition(f"\n## {name}\n")[2].partition("\n## ")[0]


def test_the_program_of_readme_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (program,) = re.findall(r"```python\n(.*?)```", section("From Python"), re.DOTALL)
    program = re.sub(r"(steps|evaluate_every\")(=|: )[\d_]+", r"\1\g<2>300", program)
    exec(compile(program, "README.md", "exec"), {})
    assert "env_steps" in capsys.readouterr().out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cartpole_agent", "runs"]


def test_the_table_of_readme_names_what_there_is():
    """Every option and argument in the right column is one; its values are taken."""
    rows = [line.split(" | ")[1] for line in section("From Python").splitlines() if line.startswith("| `")]
    assert len(rows) >= 10
    for overrides in re.findall(r"overrides=(\{.*?\})[`)]", " ".join(rows)):
        given = eval(overrides)
        assert api.composed("config", api._arguments(api._pairs({}, given)))
    for method in re.findall(r"agent\.(\w+)", " ".join(rows)):
        assert hasattr(dqn.agent.Agent, method) or method == "directory"


CELLS = [
    "import dqn, gymnasium, numpy as np\nfrom gymnasium.spaces import Box, Discrete",
    """class Mine(gymnasium.Env):
    observation_space, action_space = Box(-1, 1, (2,), np.float32), Discrete(2)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {}
    def step(self, action):
        self.t += 1
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), float(action), False, self.t >= 10, {}
""",
    """small = {"execution": "eager", "learning_starts": 100, "tracking": {"evaluate_every": 0, "final_episodes": 2}}
for env in ("CartPole-v1", Mine):
    hashes = [dqn.train(env, steps=300, overrides=small, progress=False).parameters_hash for _ in range(2)]
    print("EQUAL", hashes[0] == hashes[1])
""",
]


def test_a_notebook_trains_twice_with_equal_hashes(tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient and ipykernel")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # the kernel runs elsewhere
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert said.count("EQUAL True") == 2, said


@pytest.mark.slow
def test_a_script_trains_from_a_fresh_environment_with_the_wheel_alone(tmp_path):
    """What the wheel needs is found where it is installed here; of this checkout there is nothing."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    (place,) = (tmp_path / "venv/lib").glob("python*/site-packages")
    python = str(tmp_path / "venv/bin/python")
    install = [python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    (place / "needed.pth").write_text(f"{Path(np.__file__).parent.parent}\n")
    (tmp_path / "work").mkdir()
    (tmp_path / "work/script.py").write_text("\n".join([*CELLS, "print(dqn.__file__)"]))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [python, "script.py"], cwd=tmp_path / "work", env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("EQUAL True") == 2 and str(place) in done.stdout
    assert len([*(tmp_path / "work/runs").iterdir()]) == 4


def test_the_verb_and_the_function_have_one_name():
    assert callable(train) and train is dqn.train and callable(train.main)
    assert {"env", "algorithm", "callbacks", "resume"} <= {*inspect.signature(dqn.train).parameters}
    with pytest.raises(AttributeError):
        dqn.trains  # noqa: B018


def test_importing_the_package_is_light():
    code = "import dqn, sys; print('torch' in sys.modules or 'hydra' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    assert CONF.is_dir()
