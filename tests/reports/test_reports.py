"""The page of a report: its statistics beside slow ones, runs that crashed, and nothing of a run that is executed."""

import html.parser
import json
import re
import shutil

import numpy as np
import pytest
from conftest import here, world
from scipy import stats

from dqn import report, train
from dqn.reports import statistics
from dqn.reports.comparison import compare
from dqn.reports.page import facts
from dqn.reports.records import record, runs_below
from dqn.tracking.logger import read_table

pytest.importorskip("matplotlib", reason="pip install 'dqn-family[plot]'")
HOSTILE = "<script>alert(1)</script>"
SHORT = ["algorithm=tabular", "steps=100", "tracking.log_every=20", "tracking.evaluate_every=50",
         "tracking.evaluate_episodes=1", "tracking.final_episodes=3", "execution=eager"]  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two learning rates with two seeds, as a sweep leaves them, the same with a fiftieth of the returns as if on
    another task (a run is mostly Hydra's time), and a run that crashed."""
    place = tmp_path_factory.mktemp("runs")
    varied = ["env=chain", "optimizer.lr=0.1,0.5", "seed=0,1"]
    code, _, errors = here(train, "-m", *SHORT, *varied, f"run.dir={place}/chain", at=place)
    assert code == 0, errors
    for path in [path for path in (place / "chain").iterdir() if path.is_dir()]:
        other = shutil.copytree(path, place / "lake" / path.name)
        config, table, result = (other / name for name in ("config.yaml", "progress.jsonl", "result.json"))
        config.write_text(config.read_text().replace("id: dqn/Chain-v0", "id: FrozenLake-v1"))
        rows = [{k: v / 50 if k.endswith("/return") else v for k, v in row.items()} for row in read_table(path)]
        table.write_text("".join(json.dumps(row) + "\n" for row in rows))
        found = json.loads(result.read_text())
        found["evaluation"]["mean"] /= 50
        result.write_text(json.dumps(found))
    words = [*world("test/Raising-v0"), "steps=60", "tracking.evaluate_every=0", "execution=eager"]
    code, _, errors = here(train, *words, f"run.dir={place}/crashed")
    assert code == 1, errors
    return place


class Page(html.parser.HTMLParser):
    """Every tag and every attribute of a page, and its text."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], []
        self.feed(path.read_text())
        self.text = " ".join(" ".join(self.text).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text.append(data)


def page(place, *words):
    """The page of some runs in a directory of its own."""
    out = place / "page"
    shutil.rmtree(out, ignore_errors=True)
    code, said, errors = here(report, *words, f"out={out}")
    assert code == 0, errors
    return Page(out / "report.html"), out, said


@pytest.fixture(scope="module")
def many(runs, tmp_path_factory):
    """The page of all of them."""
    words = [runs / "chain", runs / "lake", runs / "crashed", "by=optimizer.lr"]
    return page(tmp_path_factory.mktemp("many"), *words)


def test_the_page_of_many_runs_shows_groups_tasks_and_the_crash(many):
    found, out, said = many
    assert "Runs without a result: 1 of 9" in said
    for words in ("optimizer.lr=0.1", "optimizer.lr=0.5", "dqn/Chain-v0", "8 of 9", "2 runs"):
        assert words in found.text, words
    assert "1 of 9 runs has no result" in found.text and "the world broke" in found.text
    assert found.text.count("all tasks, normalised") == 1
    pictures = {path.stem for path in out.glob("*.png")}
    assert {"curves", "scores", "profile", "improvement", "time", "signals-1", "signals-2"} <= pictures
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in out.glob("*.png"))


def test_the_page_asks_nothing_of_a_network_and_runs_nothing(many):
    found, _, _ = many
    assert "script" not in found.tags and "link" not in found.tags and "iframe" not in found.tags
    sources = [value for name, value in found.attributes if name in ("src", "href")]
    assert sources and all(value.startswith("data:") for value in sources)
    policy = next(value for name, value in found.attributes if name == "content" and "default-src" in value)
    assert "default-src 'none'" in policy and "script-src" not in policy and "http" not in policy


def test_groups_are_what_tells_runs_apart_within_a_task(runs):
    found = compare([record(path) for path in runs_below([runs / "chain", runs / "lake"])])
    assert found.by == ["optimizer.lr"] and {*found.groups} == {"optimizer.lr=0.1", "optimizer.lr=0.5"}
    assert [name for name, _ in found.differences()] == ["optimizer.lr"]
    assert len(found.comparable) == 2 and found.tasks == ["dqn/Chain-v0", "FrozenLake-v1"]
    for task in found.tasks:
        low, high = found.scale(task)
        first = np.mean([run.curve("evaluation/return")[1][0] for run in found.records if run.task == task])
        assert low == pytest.approx(first) and high == max(run.score for run in found.records if run.task == task)


def test_one_run_gives_a_page_too(runs):
    (path, *_) = runs_below([runs / "chain"])
    found, _, _ = page(runs, path)
    assert "mean return of 3 episodes" in found.text and "max |Q − Q*|" in found.text
    assert "How to read this" not in found.text and "finished" in found.text


def test_a_run_that_crashed_gives_a_page_that_says_so(runs):
    found, _, _ = page(runs, runs / "crashed")
    assert "This run failed" in found.text and "the world broke" in found.text


def test_whatever_comes_from_a_run_is_text(runs, tmp_path):
    """Its directory's name, its options, its log, its result and its task: none of it becomes a tag."""
    (path, *_) = runs_below([runs / "chain"])
    names = [f"a {HOSTILE.replace('/', '_')}", "b $x^{$ _"]
    for name in names:
        shutil.copytree(path, tmp_path / name)
        config = tmp_path / name / "config.yaml"
        config.write_text(config.read_text().replace("algorithm: tabular", f"algorithm: '_$<b>{HOSTILE}{name[0]}'"))
        config.write_text(config.read_text().replace("dqn/Chain-v0", f"'{HOSTILE}'"))
        result = json.loads((tmp_path / name / "result.json").read_text())
        result |= {"engine": HOSTILE, "versions": {HOSTILE: HOSTILE}, "parameter_hash": "<img src=x>"}
        (tmp_path / name / "result.json").write_text(json.dumps(result))
        with (tmp_path / name / "train.log").open("a") as log:
            log.write(f"2026-01-01 00:00:00,000 WARNING {HOSTILE}\n")
    found, out, _ = page(tmp_path, *(tmp_path / name for name in names))
    assert "script" not in found.tags and "b" in {*found.tags}  # a <b> of its own: the tiles
    assert found.text.count(HOSTILE) >= 5
    raw = (out / "report.html").read_text()
    assert HOSTILE not in raw and "<b>&lt;" not in raw and "<img src=x>" not in raw


@pytest.mark.parametrize("damage", ["[]", "{", "7", '{"evaluation": {"mean": "x"}, "seconds": [], "versions": 3}',
                                    '{"evaluation": 1e999}', "[" * 100_000])  # fmt: skip
def test_a_damaged_result_is_said_or_passed_over(runs, tmp_path, damage):
    (path, *_) = runs_below([runs / "chain"])
    shutil.copytree(path, tmp_path / "run")
    (tmp_path / "run/result.json").write_text(damage)
    with (tmp_path / "run/progress.jsonl").open("a") as table:
        table.write('{"env_steps": 1e999}\n{"env_steps": 400, "learner/loss": "x", "episode/return": 1e400}\nnull\n')
    found = record(tmp_path / "run")
    assert found.finished == (len(damage) > 10 and damage[0] == "{")
    assert found.finished or "damaged" in found.said
    told = facts(compare([found]))
    assert told["runs"][0]["steps"] in ("100", "400") and told["tiles"][0][0] not in ("", "x")
    assert sum(found.seconds().values()) >= 0 and np.isfinite(found.curve("learner/loss")[1]).all()


def test_a_warning_with_other_numbers_is_the_same_warning(runs):
    found = [record(path) for path in runs_below([runs / "chain"])]
    for number, run in enumerate(found):
        run.warnings = [f"Q has grown to {number * 1.5e9:.4g}, well above 2.", *(["once"] if number == 2 else [])]
    said = facts(compare(found))["warnings"]
    assert [(sentence[:5], len(names)) for sentence, names in said] == [("Q has", 4), ("once", 1)]


def test_what_is_typed_wrongly_is_a_sentence(runs):
    for words, sentence in (
        ([runs / "chain", "out="], "out= names no directory"),
        ([runs / "chain", "by=seed"], "name its directory, too, with out=DIR"),
        ([runs / "chain", f"out={runs}/page", "by=optimizer.l"], "did you mean optimizer.lr?"),
        ([runs / "nothing", f"out={runs}/page"], "no run lies in"),
        ([f"out={runs}/page"], "No run was named"),
    ):
        code, _, errors = here(report, *words)
        assert code == 2 and sentence in errors and "Traceback" not in errors, errors


def test_seconds_by_stage_of_a_run_without_a_result_are_those_of_its_log(runs):
    (path, *_) = runs_below([runs / "chain"])
    found = record(path)
    told = found.seconds()
    found.result = {}
    logged = found.seconds()
    assert logged["update"] == pytest.approx(told["update"], rel=0.35)
    assert sum(logged.values()) > 0 and len(read_table(path)) > 4


# Statistics, beside slow ones


def test_the_interquartile_mean_and_its_interval():
    scores = np.random.default_rng(0).normal(size=40)
    middle, low, high = statistics.interval(scores.tolist())
    assert middle == pytest.approx(np.sort(scores)[10:30].mean())
    drawn = [np.sort(np.random.default_rng(k).choice(scores, 40))[10:30].mean() for k in range(3000)]
    assert (low, high) == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.03)
    assert statistics.interval(scores[::-1].tolist()) == (middle, low, high)
    assert statistics.interval([3.0, 3.0]) == (3.0, 3.0, 3.0)
    assert np.isnan(statistics.over_tasks([np.array([1.0]), np.array([2.0, 3.0])])[1:]).all()


def test_the_bootstrap_draws_within_each_task():
    """One task whose runs are equal moves no interval, however far it lies from the other."""
    first = np.random.default_rng(1).normal(size=10)
    _, low, high = statistics.over_tasks([first, np.full(10, 1e6)])
    assert high < 1e6 / 2 + 10 and low > first.min() - 1  # a draw over both would now and then hold mostly one of them


def test_a_profile_and_an_improvement_are_counts():
    rng = np.random.default_rng(2)
    first, second = [rng.normal(1, 1, 6), rng.normal(0, 1, 5)], [rng.normal(0, 1, 4), np.round(rng.normal(0, 1, 5))]
    at = np.array([-1.0, 0.0, 0.7])
    middle, low, high = statistics.profile(first, at)
    assert middle == pytest.approx([np.mean([np.mean(one > tau) for one in first]) for tau in at])
    assert (low <= middle).all() and (middle <= high).all()
    second[1][0] = first[1][0]  # a tie
    won = [np.mean([(a > b) + (a == b) / 2 for a in x for b in y]) for x, y in zip(first, second, strict=True)]
    found, lower, upper = statistics.improvement(first, second)
    assert found == pytest.approx(np.mean(won)) and lower <= found <= upper
    same = [np.ones(3), np.ones(3)]
    assert statistics.improvement(same, same)[0] == 0.5


def test_a_curve_counts_each_run_as_far_as_it_goes():
    runs = [(np.array([0.0, 100, 200]), np.array([0.0, 10, 20])), (np.array([0.0, 50, 100]), np.array([2.0, 7, 12]))]
    steps, middle, low, high = statistics.curve(runs)
    assert steps.tolist() == [0, 50, 100, 200]
    assert middle.tolist() == [1.0, 6.0, 11.0, 20.0]
    assert np.isnan(low[3]) and (low[:3] <= middle[:3]).all() and (high[:3] >= middle[:3]).all()
    assert len(statistics.curve([(np.arange(1000.0), np.arange(1000.0))])[0]) == 100


def test_the_middle_of_a_page_is_scipys(runs):
    found = compare([record(path) for path in runs_below([runs / "chain"])])
    for name in found.groups:
        middle = found.interval(name, "dqn/Chain-v0")
        assert middle[0] == pytest.approx(stats.trim_mean(found.scores(name, "dqn/Chain-v0"), 0.25))
    assert re.fullmatch(r"optimizer\.lr=0\.[15]", found.comparable[0])
