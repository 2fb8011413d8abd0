"""Values of the info that tracking.info names: those of the last step of each episode, wherever it was played."""

import json
from contextlib import closing
from itertools import product

import numpy as np
import pytest
from conftest import configure, here, world
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from worlds import episode_info

from dqn import train
from dqn.config import parts
from dqn.envs.answers import number, numbers
from dqn.envs.make import make
from dqn.errors import UsageError
from dqn.tracking.episode_info import EpisodeInfo, summary
from dqn.types import Rows

MODES = ["same_step", "next_step", "disabled"]
NAMES = ("cost", "is_success", "metrics.r", "metrics.deep.n", "path", "nothing", "array")


def wanted(episode, steps):
    """The oracle: what an episode told at its last step."""
    info = episode_info(episode, steps, over=True)
    return [info["cost"], float(info["is_success"]), float(steps), float(steps), np.nan, np.nan, float(episode)]


@pytest.mark.parametrize(("num_envs", "vectorization", "mode", "ending"), [
    *product((1, 3), ("sync",), MODES, ("terminated", "truncated")), (2, "async", "same_step", "terminated"),
    (2, "async", "next_step", "truncated"), (1, "alone", "same_step", "terminated"),
])  # fmt: skip
def test_the_values_are_those_of_the_last_step_of_each_episode(num_envs, vectorization, mode, ending):
    way = [f"env.vectorization={vectorization}"] if vectorization != "alone" else []
    names = [f"tracking.info=[{','.join(NAMES)}]", f"env.num_envs={num_envs}", f"env.autoreset={mode}"]
    kwargs = ["+env.kwargs.lengths=[3,1,2]", f"+env.kwargs.ending={ending}"]
    envs = parts.environments(configure(*world("test/Telling-v0"), *way, *names, *kwargs))
    assert envs.episode_info == NAMES
    lengths, episode, ends = [3, 1, 2], np.zeros(num_envs, int), 0
    with closing(envs):
        envs.reset(0)
        for _ in range(20):
            step = envs.step(np.zeros(num_envs, np.int64))
            for e in (step.terminated | step.truncated).nonzero()[0]:
                np.testing.assert_array_equal(step.episode_info[e], wanted(episode[e], lengths[episode[e] % 3]))
                episode[e] += 1
                ends += 1
    assert ends >= 6 * num_envs


@pytest.mark.parametrize("flagged", [True, False])
@pytest.mark.parametrize("mode", ["SAME_STEP", "NEXT_STEP"])
def test_a_vector_class_of_its_own_tells_them_too(mode, flagged):
    envs = make("test/Telling-v0", 2, "vector_entry_point", kwargs={"mode": mode, "flagged": flagged},
                episode_info=("cost", "is_success", "metrics.r", "nothing"))  # fmt: skip
    envs.reset(0)
    episode, ends = np.zeros(2, int), 0
    for _ in range(30):
        step = envs.step(np.zeros(2, np.int64))
        for e in step.terminated.nonzero()[0]:
            n = 3 + e
            np.testing.assert_array_equal(step.episode_info[e], [100 * episode[e] + n, episode[e] % 2 == 0, n, np.nan])
            episode[e] += 1
            ends += 1
    assert ends >= 10


def test_names_with_dots_lead_into_dicts_and_what_is_no_number_is_none():
    info = {"a": {"b": 3, "c": np.array([[1.5]])}, "a.b": 7, "word": "x", "two": [1, 2], "yes": np.True_, "none": None}
    found = {
        name: number(info, name) for name in ("a.b", "a.c", "yes", "word", "two", "none", "a", "a.z", "z.z", "word.x")
    }
    assert {name: value for name, value in found.items() if not np.isnan(value)} == {"a.b": 7, "a.c": 1.5, "yes": 1}
    several = {"m": {"x": np.array([1.0, 2.0, 3.0]), "_x": np.array([True, False, True])}, "short": np.ones(2)}
    np.testing.assert_array_equal(numbers(several, "m.x", 3), [1, np.nan, 3])
    assert np.isnan(numbers(several, "short", 3)).all()
    assert np.isnan(numbers(several, "m", 3)).all()


@pytest.mark.parametrize("options", [
    ["env.num_envs=1"], ["env.num_envs=3"], ["env.num_envs=2", "env.autoreset=next_step"],
    ["env.num_envs=2", "execution.actor=process"], ["env.num_envs=1", "execution.actor=process"],
], ids=str)  # fmt: skip
def test_they_are_logged_as_means_over_the_episodes_that_ended(wired, options):
    run = wired(*world("test/Telling-v0", "+env.kwargs.lengths=[4,2]"), *options, "steps=120", "learning_starts=60",
                "tracking.log_every=40", "tracking.info=[cost,is_success]")  # fmt: skip
    rows, trainer = [], run.trainer
    store = trainer.store

    def watched(block):
        ended = block.terminated | block.truncated
        rows.append((trainer.env_steps, np.array(block.episode_info)[ended]))
        store(block)

    trainer.store = watched
    logged = []
    trainer.logger.scalars = lambda values, env_steps: logged.append(values)
    trainer.run()
    ended = np.concatenate([values for _, values in rows])
    assert len(ended) >= 30
    assert set(ended[:, 1]) == {0.0, 1.0}  # an episode of four steps, and one of two
    assert {cost % 100 for cost in ended[:, 0]} == {4.0, 2.0}
    lines = [line for line in logged if "episode/return" in line]
    assert len(lines) == 3
    assert all({"info/cost", "info/is_success"} <= {*line} for line in lines)
    means = [line["info/is_success"] for line in lines]
    assert 0.3 < np.mean(means) < 0.7
    assert abs(np.mean([line["info/cost"] for line in lines]) - ended[:, 0].mean()) < 0.2 * ended[:, 0].mean()


def test_the_result_the_evaluation_and_tensorboard_hold_them(tmp_path):
    tests = str(tmp_path)
    code, _, errors = here(
        train, *world("test/Telling-v0"), "steps=60", "learning_starts=20", "tracking.info=[cost,is_success,nothing]",
        "tracking.final_episodes=5", "tracking.evaluate_every=30", "tracking.evaluate_episodes=2", "torso.hidden=[4]",
        f"run.dir={tests}/run", "tracking.log_every=20", "execution=eager",
    )  # fmt: skip
    assert code == 0, errors
    info = json.loads((tmp_path / "run" / "result.json").read_text())["evaluation"]["info"]
    assert info["cost"] == {"mean": 3.0, "values": [3.0] * 5}  # an environment each, whose first episode it is
    assert info["is_success"] == {"mean": 1.0, "values": [1.0] * 5}
    assert info["nothing"] == {"mean": None, "values": [None] * 5}
    events = EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    tags = {*events.Tags()["scalars"]}
    assert {"info/cost", "info/is_success", "evaluation/info/cost", "evaluation/info/is_success"} <= tags
    assert not {tag for tag in tags if "nothing" in tag}
    text = (tmp_path / "run" / "train.log").read_text()
    assert text.count("tracking.info names nothing, and no episode so far has ended with such a number") == 1


def test_without_names_nothing_is_told_and_nothing_is_kept(wired):
    run = wired(*world("test/Telling-v0"), "steps=60")
    assert run.trainer.collector.stage.episode_info is None
    run.trainer.run()
    assert "info" not in run.trainer.evaluate(1)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["env=tensor_catch", "tracking.info=[cost]"], "tensor worlds have none: set tracking.info="),
        (["tracking.info=cost"], "tracking.info must be a list"),
        (["tracking.info=[1]"], "tracking.info must be a list"),
    ],
)
def test_what_cannot_be_named_is_refused(wired, overrides, says):
    with pytest.raises(UsageError, match=says):
        wired(*overrides)


def test_a_name_that_comes_late_is_said_once_and_logged_from_then_on(monkeypatch):
    def block(*values):
        ends = np.ones((len(values), 1), bool)
        return Rows(None, ends, ends, ends, ~ends, ~ends, episode_info=np.array(values, float).reshape(-1, 1, 2))

    said = []
    monkeypatch.setattr("dqn.tracking.episode_info.log.warning", lambda sentence, *words: said.append(sentence % words))
    gathered = EpisodeInfo(["early", "late"])
    assert gathered.read() == {}  # no episode has ended: nothing can be said
    gathered.note(block((1, np.nan), (2, np.nan)))
    assert gathered.read() == {"info/early": 1.5}
    gathered.note(block((3, np.nan)))
    assert gathered.read() == {"info/early": 3.0}
    gathered.note(block((np.nan, 5), (4, np.nan)))
    assert gathered.read() == {"info/early": 4.0, "info/late": 5.0}
    assert [sentence.partition(",")[0] for sentence in said] == ["tracking.info names late"]
    assert summary(("a",), []) == {"a": {"mean": None, "values": []}}
