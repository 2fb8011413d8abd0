"""Every YAML builds; what cannot be meant is refused in one sentence, exit code not 0, nothing lost."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import configure, world
from hydra import compose, initialize_config_dir
from omegaconf import open_dict

import dqn
from dqn import evaluate, train
from dqn.config import build
from dqn.config.cli import CONF, front_door
from dqn.config.resume import stored_text
from dqn.errors import UsageError
from dqn.tracking.logger import start_text_log

GROUPS = {path.name: sorted(p.stem for p in path.glob("*.yaml")) for path in CONF.iterdir() if path.is_dir()}
FEW_ROWS = "replay.capacity=1000"  # a million images want gigabytes
IMAGE = [*world("test/Image-v0"), FEW_ROWS]
WITH = {
    "env=atari": [FEW_ROWS], "env=gym": ["env.id=Acrobot-v1"],
    "env=tensor": ["env.world._target_=dqn.envs.tensor.grids.Catch"],
    "torso=table": ["env=chain"], "replay=newest": ["train_every=4", "n_step=1"],
    "replay=rollout": ["train_every=128", "n_step=1"], "torso=dict": [*world("test/DictImage-v0"), FEW_ROWS],
    **{f"torso={name}": IMAGE for name in ("minatar_cnn", "nature_cnn", "small_cnn", "impala_cnn", "impala_large")},
    "algorithm=tabular": ["env=chain"], "algorithm=der": IMAGE, "algorithm=btr": IMAGE,
}  # fmt: skip
LANGUAGE = {  # what a language model is needed for: tests/test_language.py builds these
    *(f"algorithm={name}" for name in GROUPS["algorithm"] if name.startswith("lm_")), "env=lm", "exploration=guided",
    "output=tied", "torso=candidates", "backup=kl_soft",
}  # fmt: skip
CHOICES = [
    f"{group}={choice}" for group, choices in sorted(GROUPS.items()) for choice in choices
    if group not in ("experiment", "tune") and f"{group}={choice}" not in LANGUAGE
]  # fmt: skip


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The directory of a short run on CartPole, as data for others."""
    directory = tmp_path_factory.mktemp("recorded")
    start_text_log(None)
    run = build.run(configure("steps=100"), directory)
    run.trainer.run()
    run.close()
    (directory / "config.yaml").write_text(stored_text(configure("steps=100")))
    return directory


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_builds(wired, choice, recorded):
    if choice.endswith("=lunarlander"):
        pytest.importorskip("Box2D")
    data = [f"replay.path={recorded}"] if choice in ("replay=dataset", "algorithm=cql") else []
    if choice in ("terms=distillation", "algorithm=distill"):
        data = [f"teacher={recorded}"]
    wired(choice, *WITH.get(choice, []), *data)


@pytest.mark.parametrize(("num_envs", "every"), [(1, 50_000), (8, 50_000), (128, 640_000)])
def test_many_environments_are_not_begun_anew_in_the_middle_of_every_episode(num_envs, every):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", overrides=[f"env.num_envs={num_envs}", "run.dir=unused"])
    assert cfg.tracking.checkpoint_every == every


@pytest.mark.parametrize("name", [name for name in GROUPS["experiment"] if name not in ("none", "lm_sentiment")])
def test_every_experiment_names_a_recipe_and_an_environment(wired, name, recorded):
    algorithm, env = next(
        (a, name.removeprefix(f"{a}_")) for a in GROUPS["algorithm"] if name.removeprefix(f"{a}_") in GROUPS["env"]
    )
    if env != "lunarlander":
        data = [f"replay.path={recorded}"] if algorithm == "cql" else []
        few = [FEW_ROWS, "env.num_envs=4"] if env == "atari" else []
        run = wired(f"algorithm={algorithm}", f"env={env}", *data, *few)
        assert run.trainer.times.steps > 0


def test_every_tuned_number_names_its_source():
    for path in [*(CONF / "experiment").glob("*.yaml"), *(CONF / "tuned").glob("*.yaml")]:
        assert "# Source" in path.read_text(), path


def command(monkeypatch, capfd, *arguments):
    """Run the verb in this process: (exit code, stderr)."""
    monkeypatch.setattr(sys, "argv", ["dqn-train", *arguments])
    with pytest.raises(SystemExit) as end:
        train.main()
    return end.value.code, capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["replay.stored_state=false"], "choose core=lstm"),
        (["algorithm=pqn", "replay.batch_size=7"], "set replay.batch_size=8"),
        (["algorithm=pqn", "head=categorical"], "lambda_ needs a head"),
        (["algorithm=rainbow", "passes.epochs=2"], "passes take a batch apart"),
        (["passes.minibatches=65"], "a batch has 64 rows"),
        (["torso=nature_cnn"], "torso=nature_cnn needs images"),
        (["optim.lrr=1"], "did you mean optimizer.lr?"),
        (["optimizer.lrr=1"], "did you mean optimizer.lr?"),
        (["gama=0.9"], "did you mean gamma?"),
        (["+gama=0.9"], "did you mean gamma?"),
        (["+tracking.log_evry=3"], "did you mean tracking.log_every?"),
        (["optimizer.lr=-1"], "optimizer.lr must be a number ≥ 0, got -1"),
        (["gamma=1.5"], "gamma must be a number between 0 and 1, got 1.5"),
        (["gamma=abc"], "gamma must be a number between 0 and 1, got 'abc'"),
        (["steps=0"], "steps must be a whole number ≥ 1"),
        (["steps=1.5"], "steps must be a whole number ≥ 1"),
        (["target.polyak=0"], "target.polyak must be in (0, 1]"),
        (["head.loss=l1"], "head.loss must be 'huber' or 'squared', got 'l1'"),
        (["exploration.epsilon.end=2"], "must stay in [0, 1]"),
        (["algorithm=dqm"], "did you mean dqn?"),
        (["env=gym"], "env.id has no value"),
        (["env=tensor"], "env.world._target_ has no value"),
        (["env.id=Pendulum-v1"], "continuous actions"),
        (["env.id=Nope-v0"], "env.id=Nope-v0 cannot be made"),
        (["torso=table"], "choose torso=mlp"),
        (["replay=newest", "train_every=2"], "set train_every=4"),
        (["+optimizer.nope=1"], "unexpected keyword argument 'nope'"),
        (["replay.capacity=100000000000"], "set replay.capacity="),
        (["device=cuda:77"], "choose device=auto"),
        (["device=abacus"], "choose device=auto"),
        (["resume=/nowhere"], "/nowhere is not a run's directory"),
        (["steps"], "steps"),
        (["algorithm=cql", "replay.capacity=1000"], "replay.path has no value"),
        (["replay=dataset"], "replay.path has no value"),
        (["backup=soft", "backup.temperature=0"], "backup.temperature must be a number above 0, got 0"),
        (["backup=expected_sarsa", "backup.epsilon=1.5"], "backup.epsilon must be a number between 0 and 1"),
        (["backup=munchausen", "backup.scale=abc"], "backup.scale must be a number ≥ 0, got 'abc'"),
        (["lr_schedule.steps=0.5"], "steps ≥ 1"),
        (["lr_schedule.end=-1"], "lr_schedule.end must be a number ≥ 0"),
        (
            ["replay=prioritized", "tuned.priority_exponent=inf"],
            "tuned.priority_exponent must be a number ≥ 0, got inf",
        ),
        (["replay=prioritized", "tuned.importance_end=-1"], "importance_end must be a number ≥ 0"),
        (["replay=prioritized", "replay.sampler.importance_exponent.start=-1"], "importance_exponent must stay ≥ 0"),
        (["replay.sampler.batch_size=nan"], "replay.sampler.batch_size must be a number that is finite"),
        (["head=quantile", "head.kappa=nan"], "head.kappa must be a number that is finite"),
        (["optimizer.lr=inf"], "optimizer.lr must be a number ≥ 0, got inf"),
        (["reward_clip=0"], "reward_clip must be a number above 0"),
        (["env=tensor_cartpole", "env.max_episode_steps=-1"], "env.max_episode_steps must be a whole number ≥ 1"),
        (["core=lstm", "replay.length=4", "replay.stored_state=no_thanks"], "must be true or false"),
        (["execution.threads=100000"], "execution.threads must be a whole number ≥ 1 and ≤ 1,024"),
        (["env.wrappers=3"], "+env.wrappers.NAME._target_=CLASS"),
        (["env.wrappers={a:{_target_:x}}"], "put a plus before it"),
        (["head=quantile", "head.loss=squared"], "head.loss belongs to another choice of head"),
        (["torso.hidden=[1000000000000]"], "memory"),
        (["resume="], "resume= names no run"),
    ],
)
def test_bad_input_is_one_sentence(monkeypatch, capfd, tmp_path, arguments, says):
    code, err = command(
        monkeypatch,
        capfd,
        *arguments,
        *([] if arguments[0].startswith("resume") else [f"run.dir={tmp_path}/run"]),
    )
    assert code == 2
    message = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(message) == 1, err
    assert says in message[0]
    assert len(err.strip().splitlines()) < 5


def test_an_unwritable_run_directory_is_one_sentence(monkeypatch, capfd, tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "run", "/proc/nothing/run"):
        code, err = command(monkeypatch, capfd, f"run.dir={place}", "steps=10")
        assert code != 0
        assert "run.dir=" in err
        assert len(err.strip().splitlines()) < 5


@pytest.mark.parametrize("error", [MemoryError("Unable to allocate 7 TiB"), RuntimeError("can't allocate memory")])
def test_too_little_memory_is_one_sentence(capfd, error):
    def job():
        raise error

    with pytest.raises(SystemExit) as end:
        front_door(job)
    assert end.value.code == 2
    assert "not enough memory" in capfd.readouterr().err


def test_a_run_directory_in_use_is_not_overwritten(monkeypatch, capfd, tmp_path):
    (tmp_path / "config.yaml").write_text("gamma: 0.5\n")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/000001-10.json").write_text("{}")
    code, err = command(monkeypatch, capfd, f"run.dir={tmp_path}", "steps=10")
    assert code == 2
    assert f"resume={tmp_path}" in err
    assert (tmp_path / "config.yaml").read_text() == "gamma: 0.5\n"


@pytest.mark.parametrize("change", ["torso=table", "target=polyak", "target=none", "optimizer=sgd", "replay=newest"])
def test_a_part_chosen_anew_inherits_no_number_tuned_for_another(change):
    group = change.partition("=")[0]
    part = {
        name: configure("env=chain", change, e)[group]
        for name, e in (("tuned", "n_step=1"), ("bare", "experiment=none"))
    }
    assert part["tuned"] == part["bare"]


def test_check_accepts_the_default():
    build.check(configure())
    with pytest.raises(UsageError):
        build.check(configure("seed=-1"))


def test_a_run_of_an_earlier_version_that_lacks_an_option_says_so(tmp_path, capsys, monkeypatch):
    for lacking in ("execution.channels_last", "seed", "tracking.log_every"):
        cfg = configure()
        section, _, name = lacking.rpartition(".")
        with open_dict(cfg):
            del (cfg[section] if section else cfg)[name]
        with pytest.raises(UsageError, match=f"^{lacking} is missing, as in a run of an earlier version: add it"):
            build.check(cfg)
    (tmp_path / "config.yaml").write_text(stored_text(cfg))
    monkeypatch.setattr(sys, "argv", ["evaluate", f"run={tmp_path}"])
    with pytest.raises(SystemExit):
        evaluate.main()
    assert "error: tracking.log_every is missing" in capsys.readouterr().err


def printed(*arguments):
    """What the verb prints, and the seconds of CPU that it took until the first line."""
    process = subprocess.Popen([sys.executable, "-m", *arguments], stdout=subprocess.PIPE, text=True,
                               cwd=Path(__file__).parent)  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()
    times = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split() if Path("/proc").is_dir() else []
    seconds = sum(map(int, times[11:13])) / os.sysconf("SC_CLK_TCK") if times else 0.0
    rest = process.stdout.read()
    assert process.wait() == 0
    return line + rest, seconds


def test_help_shows_examples_and_options_with_what_they_mean():
    text, seconds = printed("dqn.train", "--help")
    assert "python -m dqn.train -m seed=0,1,2" in text
    assert re.search(r"optimizer +adam, radam, sgd", text)
    assert "train_every: 4         # env_steps between learning phases" in text
    assert len(text.splitlines()) < 110
    assert seconds < 1.5
    page, _ = printed("dqn.train", "--help", "tracking")
    assert "evaluate_every: 10000   # env_steps" in page and "Groups" not in page


def test_the_version_is_ours():
    assert printed("dqn.train", "--version")[0] == f"dqn {dqn.__version__}\n"


def test_a_first_line_comes_before_the_heavy_imports(tmp_path):
    text, seconds = printed("dqn.train", "steps=30", "tracking.final_episodes=0", f"run.dir={tmp_path}/run")
    assert text.startswith(f"dqn {dqn.__version__}: loading PyTorch")
    assert seconds < 1.5


def test_help_of_the_other_verbs_is_no_error():
    for verb in ("dqn.evaluate", "dqn.report"):
        assert printed(verb, "--help")[0].startswith(f"usage: python -m {verb} ")
