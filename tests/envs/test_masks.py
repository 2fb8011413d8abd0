"""A21: masks of legal actions are recorded with the observation they belong to, wherever an episode ends."""

import gymnasium
import numpy as np
import pytest
from conftest import seen as parts
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary
from worlds import Counting, Masked

from dqn.envs.making import make
from dqn.envs.single import EnvironmentFailure
from dqn.types import UsageError

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
def test_a21_the_mask_beside_every_observation_is_its_own(mode, ending, kwargs):
    envs = make("test/Masked-v0", 3, autoreset=mode, kwargs={"lengths": (1, 4, 2), "ending": ending, **kwargs})
    assert envs.spec.parts[1][0] == "action_mask"
    terminations, truncations = play(envs, 200)
    assert (terminations > 50) == (ending != "truncated")
    assert (truncations > 50) == (ending == "truncated")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["bits", "box"])
def test_a21_a_mask_among_the_entries_of_a_dict_is_the_mask(mode, kind):
    envs = make("test/DictMask-v0", 2, autoreset=mode, kwargs={"kind": kind, "lengths": (1, 4, 2)})
    assert [name for name, _ in envs.spec.parts] == ["observation", "action_mask"]
    assert play(envs, 100)[0] > 50


def test_a21_a_vector_class_of_its_own_with_and_without_presence_flags():
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
def test_a21_a_promised_mask_that_is_not_given_ends_the_run_in_one_sentence(mode, kwargs, says):
    envs = make("test/Masked-v0", autoreset=mode, kwargs=kwargs)
    obs = envs.reset(0)
    with pytest.raises(EnvironmentFailure, match=says) as error:
        for _ in range(3):
            obs = envs.step(parts(envs, obs)["action_mask"].argmax(1)).obs
    assert "\n" not in str(error.value)
    assert "env.action_mask=none" in str(error.value)


def test_a21_an_illegal_action_raises():
    envs = make("test/Masked-v0")
    illegal = (~parts(envs, envs.reset(0))["action_mask"]).argmax(1)
    with pytest.raises(EnvironmentFailure, match="illegal action"):
        envs.step(illegal)


def test_a21_a_mask_of_another_length_is_refused():
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
    # an entry that is not the mask, or is not to be, is an entry like any other
    for kwargs in ({"action_mask": "none"}, {"kwargs": {"kind": "short"}}):
        names = [name for name, _ in make("test/DictMask-v0", **kwargs).spec.parts]
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
