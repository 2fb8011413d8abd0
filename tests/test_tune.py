"""python -m dqn.tune: a search ends with an experiment, goes on after kill -9, and says what it did not find."""

import os
import signal
import subprocess
import sys
import time

import pytest
import yaml
from conftest import here
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from dqn import tune
from dqn.config.cli import CONF, run_config

optuna = pytest.importorskip("optuna", reason="the extra tune is not installed")

SPACE = """\
head: [expected, quantile]
optimizer.lr: {low: 1.0e-4, high: 1.0e-2, log: true}
n_step: {low: 1, high: 3}
torso.hidden: [[8], [8, 8]]
replay: [uniform, newest]
"""
SHORT = [
    "torso=mlp", "steps=400", "learning_starts=100", "tracking.evaluate_every=100", "tracking.evaluate_episodes=1",
    "tracking.final_episodes=1", "execution=plain", "replay.batch_size=8",
]  # fmt: skip
ASKED = [*SHORT, "tune=space.yaml", "tune.dir=s", "tune.trials=5"]


def trials(folder):
    study = optuna.load_study(study_name="dqn", storage=f"sqlite:///{folder}/s/study.db")
    return study.get_trials()


def drawn(folder):
    return [(trial.number, trial.params, trial.state.name, trial.value) for trial in trials(folder)]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A search of five trials that ends, and what it said."""
    folder = tmp_path_factory.mktemp("found")
    (folder / "space.yaml").write_text(SPACE)
    code, out, errors = here(tune, *ASKED, "tune.seeds=2", at=folder)
    assert code == 0, errors
    return folder, out


def test_every_trial_has_a_line_and_failures_have_a_sentence(found):
    folder, out = found
    states = [trial.state.name for trial in trials(folder)]
    assert [f"trial {number} of 5: " in out for number in range(1, 6)] == [True] * 5
    assert "COMPLETE" in states and "FAIL" in states
    refused = next(trial for trial in trials(folder) if trial.state.name == "FAIL")
    assert refused.params["replay"] == "newest"  # which has no place beside these numbers
    assert f"  trial {refused.number + 1} failed: {refused.user_attrs['error']}" in out
    assert "Error" not in refused.user_attrs["error"]


def test_the_best_trial_is_an_experiment_that_composes_to_the_same_run(found):
    folder, out = found
    best = max((t for t in trials(folder) if t.state.name == "COMPLETE"), key=lambda t: (t.value, -t.number))
    assert f"Best is trial {best.number + 1} with" in out
    ran = run_config(folder / "s" / "trials" / str(best.number + 1))
    overrides = [*SHORT, "experiment=best", f"hydra.searchpath=[{folder / 's'}]", "run.dir=x"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        again = compose("config", overrides=overrides)
    ran, again = (OmegaConf.merge(cfg, {"run": None, "chosen": None}) for cfg in (ran, again))
    assert OmegaConf.to_container(again, resolve=True) == OmegaConf.to_container(ran, resolve=True)
    command = (folder / "s/experiment/best.yaml").read_text().splitlines()[2].removeprefix("#   python ").split()
    done = subprocess.run(
        [sys.executable, *command, "run.dir=again"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    one, two = (yaml.safe_load((path / "result.json").read_text()) for path in (
        folder / "again", folder / "s" / "trials" / str(best.number + 1),
    ))  # fmt: skip
    assert one["parameter_hash"] == two["parameter_hash"]


def test_it_is_compared_with_the_default_on_seeds_of_no_trial(found):
    folder, out = found
    runs = [run_config(path) for path in (folder / "s/fresh").iterdir()]
    assert sorted(cfg.seed for cfg in runs) == [1, 1, 2, 2]
    last = out.strip().splitlines()[-1]
    assert last.startswith(("The search does not beat the default", "Too few seeds"))
    assert (folder / "s/history.png").read_bytes().startswith(b"\x89PNG")


def test_a_search_that_is_done_runs_nothing_again(found):
    folder, _ = found
    before = drawn(folder)
    code, out, errors = here(tune, *ASKED, "tune.seeds=2", at=folder)
    assert code == 0, errors
    assert drawn(folder) == before
    assert "trial 1 of 5" not in out and ", seed 1: " not in out


def killed_in_the_second_trial(folder):
    """A search that ended by kill -9; the command that began it, and what was drawn until then."""
    (folder / "space.yaml").write_text(SPACE)
    words = [sys.executable, "-m", "dqn.tune", *ASKED, "tune.seeds=0"]
    first = subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    while "trial 1 of 5" not in (line := first.stdout.readline()):
        assert line, "it ended by itself"
    place = folder / "s/trials/2"
    for _ in range(1000):
        if place.exists():
            break
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    before = drawn(folder)
    assert [state for _, _, state, _ in before][1:] == ["RUNNING"]
    return words, before


def test_killed_and_started_again_it_is_the_search_that_was_not_killed(found, tmp_path):
    _, before = killed_in_the_second_trial(tmp_path)
    code, out, errors = here(tune, *ASKED, "tune.seeds=0", at=tmp_path)
    assert code == 0, errors
    assert "trial 1 of 5" not in out and "trial 2 of 5" in out
    after = drawn(tmp_path)
    assert after[0] == before[0]
    assert after == drawn(found[0])


@pytest.mark.slow
def test_killed_and_started_again_by_two_processes_it_has_every_trial_once(found, tmp_path):
    words, before = killed_in_the_second_trial(tmp_path)
    done = subprocess.run([*words, "tune.jobs=2"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    after = drawn(tmp_path)
    assert [number for number, *_ in after] == [0, 1, 2, 3, 4]
    assert "RUNNING" not in [state for _, _, state, _ in after]
    assert after[0] == before[0] and after[1] == drawn(found[0])[1]
    assert [done.stdout.count(f"trial {number} of 5: ") for number in range(1, 6)] == [0, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "No space was named"),
        (["tune=lerning"], "did you mean learning?"),
        (["tune=learning", "tune.trils=3"], "did you mean tune.trials?"),
        (["tune=learning", "tune.trials=0"], "whole number ≥ 1"),
        (["tune=learning", "tune.pruner=best"], "choose one of median, halving, none"),
        (["tune=learning", "gamma=0.9"], "gamma is given on the command line and cannot be searched"),
        (["tune=learning", "-m"], "does not go with a search"),
        (["tune=learning", "run.dir=x"], "tune.dir=DIR"),
        (["tune=learning", "algoritm=dqn"], "did you mean algorithm?"),
        (["tune=empty.yaml"], "is empty"),
        (["tune=unknown.yaml"], "did you mean optimizer.lr?"),
        (["tune=choice.yaml"], "head=quantil is not known"),
        (["tune=range.yaml"], "with low below high"),
        (["tune=learning", "tune.dir=broken"], "is damaged or no study of this program"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(tmp_path, words, says):
    spaces = {
        "empty": "", "unknown": "optimizer.lrr: [1, 2]", "choice": "head: [quantil]",
        "range": "gamma: {low: 1, high: 0}",
    }  # fmt: skip
    for name, text in spaces.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/study.db").write_text("no database" * 100)
    code, _, errors = here(tune, *words, at=tmp_path)
    assert code == 2 and says in errors
    assert errors.startswith("error: ") and errors.count("\n") == 1


def test_a_directory_keeps_its_search(found):
    folder, _ = found
    code, _, errors = here(tune, *ASKED, "seed=3", at=folder)
    assert code == 2 and "holds a search with other options" in errors


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "tune").glob("*.yaml")))
def test_every_space_is_over_options_and_names_its_source(name):
    tune.check_space(tune.read_space(name), [])
    assert "# Source" in (CONF / "tune" / f"{name}.yaml").read_text()


def test_a_trial_that_falls_behind_is_pruned(tmp_path):
    """Halving keeps one of four at each rung, so of seven trials some end before their steps are done."""
    (tmp_path / "space.yaml").write_text("optimizer.lr: {low: 1.0e-4, high: 1.0e-2, log: true}\n")
    code, out, errors = here(tune, *ASKED, "tune.trials=7", "tune.pruner=halving", "tune.seeds=0", at=tmp_path)
    assert code == 0, errors
    pruned = [trial for trial in trials(tmp_path) if trial.state.name == "PRUNED"]
    assert pruned
    assert f"trial {pruned[0].number + 1} of 7: pruned at " in out


@pytest.mark.parametrize(
    ("default", "best", "seeds", "says"),
    [
        ((10, 8, 12), (10, 9, 11), 5, "does not beat the default"),
        ((10, 8, 12), (11, 9, 13), 5, "is not shown to beat"),
        ((10, 8, 12), (14, 13, 15), 5, "The best trial beats"),
        ((10, 10, 10), (14, 14, 14), 1, "Too few seeds"),
    ],
)
def test_the_verdict_is_about_intervals(default, best, seeds, says):
    assert says in tune.verdict(default, best, seeds)
