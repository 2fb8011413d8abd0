"""What spaces become: arrays, records and numbered actions."""

from contextlib import closing
from itertools import product

import gymnasium
import numpy as np
import pytest
import torch
from conftest import configure, seen
from conftest import world as overrides
from gymnasium.spaces import Box, Dict, Discrete, Graph, MultiBinary, MultiDiscrete, Sequence, Space, Tuple
from worlds import ACTIONS, Counting, OneState, Strict

import dqn
from dqn.config import parts
from dqn.config.resume import stored_text
from dqn.envs.make import make
from dqn.envs.vector_of_one import Alone
from dqn.errors import UsageError
from dqn.networks.torsos import real


def world(observation=None, action=None, obs=None):
    """The id of a world with these spaces that shows `obs`, or samples."""

    class World(OneState):
        observation_space, action_space = observation or Discrete(1), action or Discrete(2)
        taken = ()

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return self.observation_space.sample() if obs is None else obs, {}

        def step(self, action):
            self.taken = (*self.taken, np.array(action).tolist())
            return self.reset()[0], 0.0, False, False, {}

    name = f"test/World{len(gymnasium.registry)}-v0"
    gymnasium.register(name, entry_point=World)
    return name


@pytest.mark.parametrize(
    ("space", "obs", "dtype"),
    [
        (MultiBinary(3), np.array([1, 0, 1], np.int8), bool),
        (MultiBinary((2, 2)), np.array([[1, 0], [0, 1]], np.int8), bool),
        (Box(0, 1, (4, 4, 2), bool), np.eye(4, dtype=bool)[..., None].repeat(2, -1), bool),
        (Box(0, 255, (2, 2), np.uint8), np.array([[1, 2], [3, 4]], np.uint8), np.uint8),
        (Box(-9, 9, (2,), np.int64), np.array([3, -4]), np.float32),
    ],
)
def test_arrays_keep_their_shape_and_bytes_stay_bytes(space, obs, dtype):
    envs = make(world(space, obs=obs), 2)
    got = envs.reset(0)
    assert got.dtype == envs.spec.obs_dtype == dtype
    assert envs.spec.obs_shape == obs.shape
    assert (got == obs).all()


@pytest.mark.parametrize(("high", "seen_as"), [(255, 1 / 255), (1, 1.0), (10, 0.1), (0, 1.0)])
def test_bytes_are_seen_as_parts_of_the_largest_that_their_space_allows(high, seen_as):
    """Planes of 0 and 1 in uint8, as boards are often shown, are no images that are all but black."""
    space = Box(0, high, (2, 2), np.uint8)
    for shown, part in ((space, lambda spec: spec), (Dict({"board": space}), lambda spec: dict(spec.parts)["board"])):
        spec = part(make(world(shown)).spec)
        got = real(torch.tensor([[0, 1], [1, 0]], dtype=torch.uint8), spec)
        torch.testing.assert_close(got, torch.tensor([[0, seen_as], [seen_as, 0]]))


@pytest.mark.parametrize("mode", ["next_step", "same_step", "disabled"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("ending", ["terminated", "truncated"])
def test_the_entries_of_a_dict_tell_of_one_moment_at_every_tick(mode, masked, ending):
    kwargs = {"masked": masked, "lengths": (1, 3, 2), "ending": ending, "size": 5}
    envs = make("test/DictImage-v0", 2, autoreset=mode, kwargs=kwargs)
    names = [name for name, _ in envs.spec.parts]
    assert sorted(names) == [*["action_mask"] * masked, "image", "own.bits", "own.number", "own.where"]
    assert dict(envs.spec.parts)["own.number"].states == 7
    obs, steps = envs.reset(seed=40), []

    def check(record, e):
        got = {name: part[e] for name, part in seen(envs, record).items()}
        tag, episode, step = (int(x) for x in got["image"][0, 0])
        assert tag == 40 + e
        assert got["own.where"].tolist() == [episode, step]
        assert (got["own.number"], got["own.bits"].tolist()) == (step, [step & 1 > 0, step & 2 > 0, False])
        return episode, step

    for e in range(2):
        assert check(obs, e) == (0, 0)
    for _ in range(12):
        action = seen(envs, obs)["action_mask"].argmax(1) if masked else np.zeros(2, np.int64)
        before, step = [check(obs, e) for e in range(2)], envs.step(action)
        for e in range(2):
            end, after = step.terminated[e] or step.truncated[e], check(step.obs, e)
            if step.final_obs is not None and end:
                assert check(step.final_obs, e) == (before[e][0], before[e][1] + 1)
            begun = step.reset[e] or (end and step.final_obs is not None)
            assert after == ((before[e][0] + 1, 0) if begun else (before[e][0], before[e][1] + 1))
        steps.append(step)
        obs = step.obs
    assert sum(s.terminated.sum() + s.truncated.sum() for s in steps) >= 8


def test_async_packs_dicts_and_masks_as_sync_does():
    def played(vectorization):
        kwargs = {"lengths": (2,), "size": 5, "masked": True, "as_list": True}
        envs = make("test/DictImage-v0", 2, vectorization, imports=["worlds"], kwargs=kwargs)
        try:
            obs = [envs.reset(7)]
            for _ in range(5):
                step = envs.step(seen(envs, obs[-1])["action_mask"].argmax(1))
                obs += [step.obs] if step.final_obs is None else [step.final_obs, step.obs]
            return np.array(obs)
        finally:
            envs.close()

    assert np.array_equal(played("async"), played("sync"))


def test_entries_of_other_kinds_are_flattened_to_vectors():
    space = Dict({"pair": Tuple([Discrete(3), Box(0, 1, (2,))]), "in": Dict({"many": MultiDiscrete([2, 3])})})
    envs = make(world(space, obs={"pair": (2, np.array([0.5, 1], np.float32)), "in": {"many": np.array([1, 0])}}))
    got = seen(envs, envs.reset(0))
    assert got["pair"].tolist() == [[0, 0, 1, 0.5, 1]]
    assert got["in.many"].tolist() == [[0, 1, 1, 0, 0]]


class Words(Space):
    """A kind of observation that Gymnasium does not know, as MiniGrid's missions are."""


@pytest.mark.parametrize(
    ("space", "says"),
    [
        (Words(), "observation, of kind Words"),
        (Sequence(Discrete(3)), "observation, of kind Sequence"),
        (Graph(Box(0, 1, (2,)), Discrete(2)), "observation, of kind Graph"),
        (Tuple([Discrete(2), Words()]), "observation, of kind Tuple"),
        (
            Dict({"image": Box(0, 255, (5, 5, 3), np.uint8), "way": Discrete(4), "episode_info": Words()}),
            r"entry `episode_info`, of kind Words.*FilterObservation.*filter_keys: \[image, way\]",
        ),
        (Dict({"in": Dict({"told": Words(), "way": Discrete(2)}), "way": Discrete(4)}), r"`in.told`.*\[way\]"),
    ],
)
def test_observations_without_a_fixed_number_of_values_are_refused(space, says):
    with pytest.raises(UsageError, match=says) as error:
        make(world(space))
    assert "\n" not in str(error.value)


def test_names_that_nesting_makes_equal_are_refused():
    with pytest.raises(UsageError, match="entries of the same name"):
        make(world(Dict({"a.b": Discrete(2), "a": Dict({"b": Discrete(2)})})))


def test_every_combination_of_a_multidiscrete_action_has_a_number():
    envs = make(world(action=MultiDiscrete([2, 3], start=[0, -1])))
    assert envs.spec.num_actions == 6
    envs.reset(0)
    for number in range(6):
        envs.step(np.array([number]))
    assert envs.envs.envs[0].unwrapped.taken == tuple(list(pair) for pair in product([0, 1], [-1, 0, 1]))


@pytest.mark.filterwarnings("ignore:.*Getting the length")
def test_multibinary_and_square_multidiscrete_actions():
    envs = make(world(action=MultiBinary(3)))
    envs.reset(0)
    envs.step(np.array([6]))
    assert (envs.spec.num_actions, envs.envs.envs[0].unwrapped.taken) == (8, ([1, 1, 0],))
    envs = make(world(action=MultiDiscrete([[2, 2], [2, 3]])))
    envs.reset(0)
    envs.step(np.array([23]))
    assert (envs.spec.num_actions, envs.envs.envs[0].unwrapped.taken) == (24, ([[1, 1], [1, 2]],))


@pytest.mark.parametrize("actions", [name for name in ACTIONS if name != "many"])
@pytest.mark.parametrize("way", ["alone", "sync", "async", "vector_entry_point"])
def test_every_action_lies_in_the_environments_own_space(way, actions):
    """The world takes no other; every number becomes an action of its own."""
    num_envs = 1 if way == "alone" else 2
    space = [f"+env.kwargs.actions={actions}", f"env.num_envs={num_envs}"]
    ways = [] if way == "alone" else [f"env.vectorization={way}"]
    envs = parts.environments(configure(*overrides("test/Strict-v0"), *space, *ways))
    assert isinstance(envs, Alone) == (way == "alone")
    Strict.TAKEN.clear()
    with closing(envs):
        envs.reset(0)
        for number in range(envs.spec.num_actions):
            envs.step(np.full(num_envs, number))
    if way in ("alone", "sync"):
        assert len({str(taken) for taken in Strict.TAKEN}) == envs.spec.num_actions


@pytest.mark.parametrize("actions", [name for name in ACTIONS if name != "many"])
def test_training_evaluation_and_a_loaded_agent_take_actions_of_the_space(wired, actions):
    chosen = [*overrides("test/Strict-v0"), f"+env.kwargs.actions={actions}"]
    run = wired(*chosen, "steps=30", "learning_starts=10")
    run.trainer.run()
    assert run.trainer.evaluate(2)["lengths"] == [10, 10]
    (run.trainer.directory / "config.yaml").write_text(stored_text(configure(*chosen)))
    agent = dqn.load(str(run.trainer.directory), trust=["worlds"])
    assert agent.make().action_space.contains(agent.act(np.zeros(3, np.float32)))


def test_too_many_combinations_are_refused_with_the_option_that_takes_them():
    assert make(world(action=MultiDiscrete([32, 32]))).spec.num_actions == 1024
    for action, number in ((MultiDiscrete([25, 41]), 1025), (MultiBinary(12), 4096)):
        with pytest.raises(
            UsageError, match=f"{number:,} combinations of actions .* set env.max_actions={number}"
        ) as error:
            make(world(action=action))
        assert "\n" not in str(error.value)
        assert make(world(action=action), max_actions=number).spec.num_actions == number


@pytest.mark.parametrize(
    ("most", "says"),
    [
        (5, r"6 combinations .* At most env.max_actions=5 are taken: set env.max_actions=6"),
        (0, "env.max_actions must be a whole number ≥ 1"),
    ],
)
def test_the_limit_is_an_option(wired, most, says):
    with pytest.raises(UsageError, match=says):
        wired(*overrides("test/Strict-v0"), "+env.kwargs.actions=pair", f"env.max_actions={most}")


def test_a_raised_limit_counts_in_training_evaluation_and_for_a_loaded_agent(wired):
    chosen = [*overrides("test/Strict-v0"), "+env.kwargs.actions=many", "env.max_actions=2000", "torso.hidden=[4]"]
    run = wired(*chosen, "steps=30", "learning_starts=10")
    run.trainer.run()
    assert run.trainer.evaluate(1)["lengths"] == [10]
    (run.trainer.directory / "config.yaml").write_text(stored_text(configure(*chosen)))
    agent = dqn.load(str(run.trainer.directory), trust=["worlds"])
    assert agent.make().action_space.contains(agent.act(np.zeros(3, np.float32)))


def test_one_buffer_shown_for_ever_is_copied_at_the_end():
    envs = make("test/DictImage-v0", kwargs={"lengths": (1,), "size": 4})
    envs.reset(5)
    step = envs.step(np.zeros(1, np.int64))
    assert seen(envs, step.final_obs)["image"][0, 0, 0].tolist() == [5, 0, 1]
    assert seen(envs, step.obs)["image"][0, 0, 0].tolist() == [5, 1, 0]
    assert Counting.PLAYED
