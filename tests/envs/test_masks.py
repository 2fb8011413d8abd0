"""Masks of legal actions are recorded with the observation they belong to, wherever an episode ends."""

from contextlib import closing
from typing import ClassVar

import gymnasium
import numpy as np
import pytest
from conftest import configure, world
from conftest import seen as parts
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete
from worlds import GOOD_MASKS, Counting, Masked

import dqn
from dqn.config.resume import stored_text
from dqn.envs.make import make
from dqn.envs.spaces import Actions
from dqn.envs.wrappers import EnvironmentFailure
from dqn.errors import UsageError

WHERE = ["dict", "nested", "info"]

MODES = ["next_step", "same_step", "disabled"]


class DictMask(gymnasium.ObservationWrapper):
    """Masked, whose mask is an entry of its Dict observation and nothing in the info."""

    def __init__(self, kind="bits", **kwargs):
        super().__init__(Masked(**kwargs))
        mask = {"bits": MultiBinary(4), "box": Box(0, 1, (4,), np.int8), "short": MultiBinary(3)}[kind]
        self.short = kind == "short"
        self.observation_space = Dict({"observation": Box(-np.inf, np.inf, (3,)), "action_mask": mask})

    def observation(self, obs):
        mask = self.env.mask
        return {"observation": obs.astype(np.float32), "action_mask": mask[:3] if self.short else mask}

    def reset(self, **kwargs):
        return super().reset(**kwargs)[0], {}

    def step(self, action):
        return *super().step(action)[:4], {}


gymnasium.register("test/DictMask-v0", entry_point=DictMask)


def check(envs, record, rows, over):
    """Every mask is the one of the observation beside it; at an end by termination all actions are legal."""
    seen = parts(envs, record)
    for e in np.flatnonzero(rows):
        want = [True] * 4 if over[e] else Masked.legal(*seen["observation"][e])
        assert seen["action_mask"][e].tolist() == want, (e, seen)
    return seen["action_mask"]


def play(envs, ticks, seed=40):
    """Legal actions at random; every mask is checked. Returns how many ends of each kind were seen."""
    rng, every, none = np.random.default_rng(0), np.ones(envs.num_envs, bool), np.zeros(envs.num_envs, bool)
    obs, ends = envs.reset(seed), np.zeros(2, int)
    mask = check(envs, obs, every, none)
    for _ in range(ticks):
        step = envs.step(np.array([rng.choice(np.flatnonzero(row)) for row in mask]))
        ends += step.terminated.sum(), (step.truncated & ~step.terminated).sum()
        here = step.terminated if step.final_obs is None else none
        mask = check(envs, step.obs, every, here)
        if step.final_obs is not None:
            check(envs, step.final_obs, step.terminated | step.truncated, step.terminated)
    return ends.tolist()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("ending", ["terminated", "truncated", "both"])
@pytest.mark.parametrize("kwargs", [{"end": "empty"}, {"end": "missing"}, {"as_list": True}])
def test_the_mask_beside_every_observation_is_its_own(mode, ending, kwargs):
    envs = make("test/Masked-v0", 3, autoreset=mode, kwargs={"lengths": (1, 4, 2), "ending": ending, **kwargs})
    assert envs.spec.parts[1][0] == "action_mask"
    terminations, truncations = play(envs, 200)
    assert (terminations > 50) == (ending != "truncated")
    assert (truncations > 50) == (ending == "truncated")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["bits", "box"])
def test_a_mask_among_the_entries_of_a_dict_is_the_mask(mode, kind):
    envs = make("test/DictMask-v0", 2, autoreset=mode, kwargs={"kind": kind, "lengths": (1, 4, 2)})
    assert [name for name, _ in envs.spec.parts] == ["observation", "action_mask"]
    assert play(envs, 100)[0] > 50


def test_a_vector_class_of_its_own_with_and_without_presence_flags():
    class Vector(gymnasium.vector.VectorEnv):
        metadata = {"autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP}  # noqa: RUF012
        single_observation_space, single_action_space = Discrete(9), Discrete(2)
        flagged = True

        def __init__(self, num_envs=1, flagged=True, as_object=False):
            self.num_envs, self.flagged, self.as_object = num_envs, flagged, as_object

        def _info(self):
            mask = np.array([[1, 0], [0, 1]])
            if self.as_object:
                mask = np.array([[1, 0], None], object)[:1].repeat(2)
                mask[0], mask[1] = [1, 0], [0, 1]
            return {"action_mask": mask, **({"_action_mask": np.ones(2, bool)} if self.flagged else {})}

        def reset(self, *, seed=None, options=None):
            return np.zeros(2, np.int64), self._info()

        def step(self, actions):
            ends = np.array([False, True])
            info = {**self._info(), "final_info": {"action_mask": np.ones((2, 2))}, "final_obs": np.array([0, 8])}
            return np.ones(2, np.int64), np.zeros(2), ends & False, ends, info

    gymnasium.register("test/MaskedVector-v0", vector_entry_point=Vector)
    for kwargs in ({}, {"flagged": False}, {"as_object": True}):
        envs = make("test/MaskedVector-v0", 2, "vector_entry_point", kwargs=kwargs)
        assert parts(envs, envs.reset(0))["action_mask"].tolist() == [[True, False], [False, True]]
        step = envs.step(np.array([0, 1]))
        assert parts(envs, step.obs)["action_mask"].tolist() == [[True, False], [False, True]]
        final = parts(envs, step.final_obs)
        assert (final["observation"][1], final["action_mask"][1].tolist()) == (8, [True, True])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"lost_at": 2}, r"environment 0 \(test/Masked-v0\) gave no info\['action_mask'\]"),
        ({"blocked_at": 2}, r"environment 0 \(test/Masked-v0\) has no legal action"),
        ({"lost_at": 3, "ending": "truncated"}, r"gave no info\['action_mask'\]"),  # it bootstraps from there
        ({"blocked_at": 3, "ending": "truncated"}, "has no legal action"),
    ],
)
def test_a_promised_mask_that_is_not_given_ends_the_run_in_one_sentence(mode, kwargs, says):
    envs = make("test/Masked-v0", autoreset=mode, kwargs=kwargs)
    obs = envs.reset(0)
    with pytest.raises(EnvironmentFailure, match=says) as error:
        for _ in range(3):
            obs = envs.step(parts(envs, obs)["action_mask"].argmax(1)).obs
    assert "\n" not in str(error.value)
    assert "env.action_mask=none" in str(error.value)


def test_an_illegal_action_raises():
    envs = make("test/Masked-v0")
    illegal = (~parts(envs, envs.reset(0))["action_mask"]).argmax(1)
    with pytest.raises(EnvironmentFailure, match="illegal action"):
        envs.step(illegal)


def test_a_mask_of_another_length_is_refused():
    class Long(Masked):
        action_space = Discrete(3)

    gymnasium.register("test/LongMask-v0", entry_point=Long)
    with pytest.raises(EnvironmentFailure, match=r"shape \(4,\) for 3 actions"):
        make("test/LongMask-v0").reset(0)


def test_action_mask_required_auto_and_none():
    assert make("test/Masked-v0", action_mask="required").spec.parts
    plain = make("test/Masked-v0", action_mask="none")
    assert (plain.spec.obs_shape, plain.spec.parts) == ((3,), ())
    assert not make("test/Counting-v0").spec.parts
    with pytest.raises(UsageError, match=r"env.action_mask=required but test/Counting-v0 gives no info"):
        make("test/Counting-v0", action_mask="required")
    with pytest.raises(UsageError, match=r"env.action_mask must be one of auto, required, none, got 'maybe'"):
        make("test/Masked-v0", action_mask="maybe")
    # an entry that is not to be the mask is an entry like any other, also one that could not be
    for kwargs in ({}, {"kwargs": {"kind": "short"}}):
        names = [name for name, _ in make("test/DictMask-v0", action_mask="none", **kwargs).spec.parts]
        assert sorted(names) == ["observation", "observation.action_mask"]


def test_looking_for_masks_makes_no_environment_beside_those_that_play():
    class Counted(Counting):
        made = 0

        def __init__(self):
            super().__init__()
            Counted.made += 1

    gymnasium.register("test/Counted-v0", entry_point=Counted)
    make("test/Counted-v0", 2)
    assert Counted.made == 2


def test_taxi_says_which_actions_do_something():
    envs = make("Taxi-v4", 2)
    (name, observation), (_, mask) = envs.spec.parts
    assert (name, observation.states, mask.obs_shape) == ("observation", 500, (6,))
    seen = parts(envs, envs.reset(0))
    taxi = envs.envs.envs[0].unwrapped
    assert seen["action_mask"].tolist() == [taxi.action_mask(s).astype(bool).tolist() for s in seen["observation"]]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("form", GOOD_MASKS)
@pytest.mark.parametrize("where", WHERE)
def test_a_mask_of_any_dtype_is_honoured(where, form, mode):
    """The world raises at the first illegal action."""
    envs = make("test/MaskForms-v0", 2, autoreset=mode, kwargs={"form": form, "where": where}, action_mask="required")
    assert [name.rpartition(".")[2] for name, _ in envs.spec.parts] == ["observation", "action_mask"]
    mask = parts(envs, envs.reset(0))["action_mask"]
    ends = 0
    for _ in range(24):
        assert (mask.dtype, mask.sum(1).tolist()) == (bool, [1, 1])
        step = envs.step(mask.argmax(1))
        ends += step.terminated.sum()
        seen = parts(envs, step.obs)
        mask = np.where(
            (step.terminated & (step.final_obs is None))[:, None], np.eye(6, dtype=bool)[0], seen["action_mask"]
        )
    assert ends >= 4


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize(
    ("form", "says"),
    [
        ("words", "no array of numbers|is not float32"), ("nan", "holds nan|nan at"), ("half", r"holds 0\.5"),
        ("minus", "holds -1"), ("two", "holds 2"), ("short", r"\(5,\)"), ("column", r"\(6, 1\)"),
    ],
)  # fmt: skip
def test_a_mask_that_is_none_is_refused_in_a_sentence_that_names_it(form, says, where):
    with pytest.raises((EnvironmentFailure, UsageError), match=says) as error:
        make("test/MaskForms-v0", 2, kwargs={"form": form, "where": where}).reset(0)
    sentence = str(error.value)
    assert "test/MaskForms-v0" in sentence
    assert "mask" in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("form", ["float32", "object"])
@pytest.mark.parametrize("where", WHERE)
def test_no_illegal_action_is_taken_in_training_evaluation_or_by_a_loaded_agent(wired, where, form):
    overrides = world("test/MaskForms-v0", f"+env.kwargs.form={form}", f"+env.kwargs.where={where}")
    run = wired(*overrides, "steps=200", "learning_starts=50", "env.num_envs=2")
    run.trainer.run()
    assert run.trainer.evaluate(3)["lengths"] == [10, 10, 10]
    (run.trainer.directory / "config.yaml").write_text(stored_text(configure(*overrides)))
    agent = dqn.load(str(run.trainer.directory), trust=["worlds"])
    env = agent.make()
    obs, info = env.reset(seed=0)
    for _ in range(10):
        obs, _, over, _, info = env.step(agent.act(obs, info.get("action_mask")))
    assert over


def test_a_loaded_agent_refuses_a_mask_that_is_none(wired):
    overrides = world("test/MaskForms-v0", "+env.kwargs.where=info")
    run = wired(*overrides, "steps=20")
    run.trainer.run()
    (run.trainer.directory / "config.yaml").write_text(stored_text(configure(*overrides)))
    agent, obs = dqn.load(str(run.trainer.directory), trust=["worlds"]), np.zeros(1, np.float32)
    assert agent.act(obs, [0, 0, 1.0, 0, 0, 0]) == 2
    for mask in (np.full(6, np.nan), ["no"] * 6, [1, 0]):
        with pytest.raises(UsageError, match=r"that holds|that is no array of numbers|of shape"):
            agent.act(obs, mask)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_a_list_that_is_longer_at_one_step_is_refused(vectorization):
    """Gymnasium's vectors could not stack it."""
    kwargs = {"lengths": (9,), "episode_info": "ragged mask"}
    with closing(make("test/Odd-v0", 2, vectorization, imports=["worlds"], kwargs=kwargs)) as envs:
        envs.reset(0)
        with pytest.raises(EnvironmentFailure, match=r"gave an action mask at its step 2: one of shape \(4,\) for 3"):
            for _ in range(3):
                envs.step(np.zeros(2, np.int64))


def test_several_masks_in_one_dict_are_refused():
    class Two(Counting):
        mask = MultiBinary(3)
        observation_space = Dict({"action_mask": mask, "other": Dict({"action_mask": mask})})

        def reset(self, *, seed=None, options=None):
            return self.observation_space.sample(), {}

    gymnasium.register("test/TwoMasks-v0", entry_point=Two)
    with pytest.raises(UsageError, match=r"several masks of legal actions, action_mask, other\.action_mask"):
        make("test/TwoMasks-v0")


@pytest.mark.parametrize(("shape", "sizes"), [((6,), [3, 2]), ((3, 2), [3, 2]), ((2, 2), [[2], [2]]), ((4,), [2, 2])])
@pytest.mark.parametrize("where", ["dict", "info"])
def test_a_mask_of_many_sided_actions_speaks_of_their_combinations(where, shape, sizes):
    """One value for each combination, as a vector in the order of the numbers, or as a matrix."""

    class Many(Counting):
        action_space = MultiDiscrete(sizes)
        mask, where_ = Box(0, 1, shape), where
        observation_space = Dict({"seen": Discrete(2), "action_mask": mask}) if where == "dict" else Discrete(2)
        taken: ClassVar[list] = []

        def see(self):
            n = int(np.prod(shape))
            mask = np.eye(n, dtype=np.float32)[self.count % n].reshape(shape)
            return (1, {"action_mask": mask}) if where == "info" else ({"seen": 1, "action_mask": mask}, {})

        def reset(self, *, seed=None, options=None):
            self.count = 0
            return self.see()

        def step(self, action):
            self.taken.append(int(np.ravel_multi_index(tuple(np.ravel(action)), tuple(np.ravel(sizes)))))
            self.count += 1
            return *self.see()[:1], 0.0, False, False, self.see()[1]

    name = f"test/Many{len(gymnasium.registry)}-v0"
    gymnasium.register(name, entry_point=Many)
    envs = make(name)
    obs = envs.reset(0)
    for _ in range(6):
        obs = envs.step(parts(envs, obs)["action_mask"].argmax(1)).obs
    n = int(np.prod(shape))
    assert Many.taken == [i % n for i in range(6)]


def test_a_mask_for_each_dimension_is_refused_with_the_shapes_that_are_taken():
    actions = Actions("it", MultiDiscrete([3, 2]))
    for mask in ([1, 1, 1, 0, 1], (np.ones(3), np.ones(2))):
        with pytest.raises(ValueError, match=r"give (\(6,\) or |an array )\(3, 2\)"):
            actions.legal_of_one(mask)
    with pytest.raises(ValueError, match=r"give an array \(2, 2\)"):
        Actions("it", MultiDiscrete([2, 2])).legal_of_one((np.ones(2), np.ones(2)))
