"""scripts/reproduce classic: what is cached, what lands in the file, how it is summed up; no run is made."""

import json
import os
import re
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import configure
from scipy import stats

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from experiments import classic, launch, results, sb3  # noqa: E402


def result(score=1.0, seconds=10.0, **more):
    return {
        "evaluation": {"mean": score},
        "seconds": seconds,
        "env_steps": 50_000,
        "updates": 7,
        "device": "cpu",
        "versions": {"torch": "9.9"},
        **more,
    }


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Runs are stubs noted in `made`; `settings` is what conf/ holds; nothing is written outside tmp_path."""

    class Bench:
        def __init__(self):
            self.made, self.fails, self.settings = [], set(), "one"
            self.file, self.readme = tmp_path / "classic.json", tmp_path / "README.md"

        def __call__(self, *arguments):
            self.made = []
            return classic.main(["recipe=dqn,qr_dqn", "env=cartpole,acrobot", "jobs=1", *arguments])

        def runs(self):
            return json.loads(self.file.read_text())["runs"]

    bench = Bench()

    def execute(run, options):
        bench.made.append(run.key)
        if run.key in bench.fails:
            raise launch.Failed(f"{run} failed")
        return result(score=100.0 + run.seed)

    monkeypatch.setattr(classic, "execute", execute)
    monkeypatch.setattr(classic, "fingerprint", lambda recipe, overrides, env, steps: bench.settings)
    monkeypatch.setattr(classic, "JSON", bench.file)
    monkeypatch.setattr(classic, "README", bench.readme)
    monkeypatch.setattr(launch, "RUNS", tmp_path / "runs")
    return bench


def test_seeds_stay_balanced_and_every_run_lands(bench):
    assert bench("seeds=2") == 0
    pairs = ["cartpole/dqn", "cartpole/qr_dqn", "acrobot/dqn", "acrobot/qr_dqn"]
    assert bench.made == [f"{pair}/{seed}" for seed in (0, 1) for pair in pairs]
    assert set(bench.runs()) == set(bench.made)
    assert bench.runs()["acrobot/qr_dqn/1"]["return"] == 101.0


def test_what_lies_in_the_file_is_not_run_again_even_without_its_directory(bench):
    bench("seeds=2")
    bench("seeds=3")
    assert bench.made == ["cartpole/dqn/2", "cartpole/qr_dqn/2", "acrobot/dqn/2", "acrobot/qr_dqn/2"]
    assert len(bench.runs()) == 12


def test_other_settings_are_run_again_and_a_row_never_mixes_them(bench):
    bench("seeds=3")
    bench.settings = "two"
    bench("seeds=1", "recipe=dqn", "env=cartpole")
    assert bench.made == ["cartpole/dqn/0"]
    rows = bench.runs()
    assert [k for k in rows if k.startswith("cartpole/dqn/")] == ["cartpole/dqn/0"]
    assert rows["cartpole/dqn/0"]["settings"] == "two"
    assert len([k for k in rows if k.startswith("acrobot/dqn/")]) == 3


def test_a_failed_run_costs_only_itself_and_is_tried_again(bench, capsys):
    bench.fails = {"acrobot/dqn/0"}
    assert bench("seeds=1") == 1
    assert "acrobot dqn seed 0 failed" in capsys.readouterr().out
    assert set(bench.runs()) == {"cartpole/dqn/0", "cartpole/qr_dqn/0", "acrobot/qr_dqn/0"}
    bench.fails = set()
    assert bench("seeds=1") == 0
    assert bench.made == ["acrobot/dqn/0"]


def test_a_trial_with_other_options_leaves_the_committed_file_alone(bench):
    bench("seeds=1")
    before = bench.file.read_text()
    bench("seeds=1", "steps=100")
    assert len(bench.made) == 4
    assert bench.file.read_text() == before
    assert len(json.loads((launch.RUNS / "classic.json").read_text())["runs"]) == 4


def test_sittings_on_two_machines_add_up(bench, monkeypatch):
    bench("seeds=1")
    monkeypatch.setattr(results.os, "cpu_count", lambda: 96)
    bench("seeds=2")
    data = json.loads(bench.file.read_text())
    cores = {key: data["sittings"][run["sitting"]]["cores"] for key, run in data["runs"].items()}
    assert len(data["sittings"]) == 2
    assert cores["cartpole/dqn/1"] == 96 != cores["cartpole/dqn/0"]
    made = data["sittings"][data["runs"]["cartpole/dqn/1"]["sitting"]]
    assert set(made) == {"date", "commit", "cpu", "cores", "jobs", "versions"}


def test_one_line_a_run_so_that_sittings_merge_in_git(bench):
    bench("seeds=2")
    lines = [line for line in bench.file.read_text().splitlines() if '"return"' in line]
    assert len(lines) == 8
    assert all(line.count('"return"') == 1 for line in lines)


def test_seconds_of_a_resumed_run_are_those_of_all_its_parts(tmp_path):
    resumed = result(seconds=3.0, seconds_by_stage={"env": 20.0, "update": 30.0})
    results.land(tmp_path / "f.json", "cartpole/dqn/0", "x", resumed, 1)
    assert results.read(tmp_path / "f.json")["runs"]["cartpole/dqn/0"]["seconds"] == 50.0


def test_unknown_names_and_words_are_refused(bench, capsys):
    with pytest.raises(SystemExit, match="recipe=dqm is not known"):
        bench("recipe=dqm")
    assert bench("shew") == 2
    assert "usage" in capsys.readouterr().err


def test_without_stable_baselines3_its_rows_are_left_out_in_one_sentence(bench, monkeypatch, capsys):
    monkeypatch.setattr(classic, "has", lambda python, module: module != "stable_baselines3")
    assert bench("recipe=dqn,sb3", "seeds=1") == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "stable-baselines3" in line]
    assert len(said) == 1 and "sb3=" in said[0]
    assert bench.made == ["cartpole/dqn/0", "acrobot/dqn/0"]


def test_iqm_is_scipys_trimmed_mean_inside_its_interval():
    values = np.random.default_rng(1).normal(size=10)
    iqm, low, high = results.interval(values)
    by_hand = np.sort(values)[2:8].mean()  # a quarter of ten, rounded down, off both ends
    assert iqm == pytest.approx(stats.trim_mean(values, 0.25)) == pytest.approx(by_hand)
    assert low < iqm < high
    assert values.min() <= low and high <= values.max()
    assert results.interval(np.array([3.0])) == (3.0, 3.0, 3.0)
    assert results.interval(np.full(10, 500.0)) == (500.0, 500.0, 500.0)


def land(path, key, *scores, seconds=10.0):
    for seed, score in enumerate(scores):
        results.land(path, f"{key}/{seed}", "x", result(score, seconds), 2)


def test_table_shows_iqm_interval_and_missing_seeds(tmp_path):
    file = tmp_path / "f.json"
    land(file, "cartpole/dqn", 500, 500, 500, 500)
    land(file, "acrobot/dqn", -90.5, -80, seconds=31.2)
    land(file, "cartpole/sb3", 200, 100, 150, 250)
    rows = results.table(results.read(file), classic.IDS, classic.ROWS).splitlines()
    assert rows[0] == "| | CartPole-v1, 50k steps | Acrobot-v1, 50k steps | MountainCar-v0 | LunarLander-v3 |"
    assert rows[2].startswith("| `dqn` | 500 [500, 500] | −85.2 [−90.5, −80], 2 seeds | – | – |")
    assert rows[3].startswith("| Stable-Baselines3 DQN, the zoo's settings | 175 [")
    assert "qr_dqn" not in "".join(rows)
    assert "−100.8" in "".join(rows) and "4 seeds" in rows[-1] and "torch 9.9" in rows[-1]
    assert len({row.count("|") for row in rows if row.startswith("|")}) == 1


def test_show_writes_readme_and_picture_and_makes_no_run(bench, capsys):
    bench("seeds=2")
    bench.made = []
    bench.readme.write_text("above\n<!-- classic -->\nold\n<!-- /classic -->\nbelow\n")
    assert classic.main(["show"]) == 0
    text = bench.readme.read_text()
    assert re.fullmatch(r"above\n<!-- classic -->\n\| .*\n<!-- /classic -->\nbelow\n", text, re.DOTALL)
    assert "old" not in text and "`qr_dqn` | 100.5 [100, 101]" in text
    assert bench.file.with_suffix(".png").stat().st_size > 1000
    assert bench.made == []
    bench.settings = "two"
    classic.main(["show"])
    assert capsys.readouterr().out.count("conf/ has changed since these runs") == 4


def test_show_says_when_the_readme_has_no_marks(bench, capsys):
    bench("seeds=1")
    bench.readme.write_text("no marks")
    assert classic.main(["show"]) == 1
    assert "add <!-- classic --> and <!-- /classic -->" in capsys.readouterr().err
    assert bench.readme.read_text() == "no marks"


def test_settings_are_what_decides_the_outcome():
    def settings(*overrides):
        return classic.fingerprint("dqn", ["env=cartpole", "steps=100", *overrides], "cartpole", 100)

    plain = settings()
    assert plain == settings("seed=5", "device=cpu", "execution=eager", "run.dir=x", "tracking.log_every=7")
    others = [
        settings("tuned.lr=1e-5"),
        settings("backup=double_q"),
        settings("n_step=9"),
        settings("seed=1", "steps=101"),
    ]
    assert len({plain, *others}) == 5
    assert results.digest({"a": 1, "b": None}) == results.digest({"a": 1}) != results.digest({"a": 2})


def test_the_yardstick_covers_every_environment_and_its_settings_count():
    prints = {classic.fingerprint("sb3", [], env, steps) for env, steps in classic.ENVS.items()}
    assert len(prints) == len(classic.ENVS) == len(sb3.ZOO)


def test_sb3s_evaluation_plays_whole_episodes_with_raw_returns():
    class Env:
        def __init__(self):
            self.seeds, self.left = [], 0

        def reset(self, seed=None):
            self.seeds.append(seed)
            self.left = 1 + len(self.seeds)
            return 0, {}

        def step(self, action):
            assert type(action) is int
            self.left -= 1
            return 0, 2.5, self.left == 0, False, {}

    class Model:
        def predict(self, obs, deterministic):
            assert deterministic
            return np.int64(1), None

    env = Env()
    played = sb3.evaluate(Model(), env, 3, 42)
    assert played["lengths"] == [2, 3, 4]
    assert played["returns"] == [5.0, 7.5, 10.0]
    assert played["mean"] == 7.5
    assert env.seeds[:2] == [42, None]


def test_a_signal_ends_the_runs_under_way_once():
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}

    class Child:
        stopped = 0

        def terminate(self):
            self.stopped += 1

    child = Child()
    launch.CHILDREN.add(child)
    try:
        signal.signal(signal.SIGTERM, launch.stop)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # as `timeout` does: once the program, once its group
        assert child.stopped == 1
    finally:
        launch.CHILDREN.discard(child)
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.parametrize("env", classic.ENVS)
def test_both_programs_get_the_zoos_settings(env):
    of, steps = sb3.ZOO[classic.IDS[env]], classic.ENVS[env]
    cfg = configure(*classic.overrides_of(env, classic.ZOO, steps))
    ours = {
        "learning_rate": cfg.optimizer.lr, "batch_size": cfg.replay.batch_size, "buffer_size": cfg.replay.capacity,
        "learning_starts": cfg.learning_starts, "gamma": cfg.gamma, "target_update_interval": cfg.target.period,
        "train_freq": cfg.train_every, "gradient_steps": cfg.updates,
        "exploration_fraction": cfg.exploration.epsilon.steps / steps,
        "exploration_final_eps": cfg.exploration.epsilon.end,
    }  # fmt: skip
    assert ours == of
    assert (cfg.env.id, cfg.env.num_envs, cfg.n_step, cfg.steps) == (classic.IDS[env], 1, 1, steps)
    assert (cfg.torso.hidden, cfg.torso.norm, cfg.replay.sampler._target_.rpartition(".")[2]) == (
        sb3.NETWORK, None, "Uniform",
    )  # fmt: skip
    # what Stable-Baselines3 has by itself
    assert (cfg.head.loss, cfg.max_grad_norm, cfg.lr_schedule.end, cfg.exploration.epsilon.start) == ("huber", 10, 1, 1)
