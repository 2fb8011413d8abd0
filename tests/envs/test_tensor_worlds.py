"""Worlds of tensors keep their word: pure functions, fixed shapes, the same draws, and they can be recorded."""

import pytest
import torch

from dqn.envs.tabular import RandomMDP
from dqn.envs.tensor import WORLDS
from dqn.envs.tensor.classic import CartPole
from dqn.envs.tensor.grids import Catch, DeepSea
from dqn.envs.tensor.tables import Tables
from dqn.envs.tensor.tabular import Tabular
from dqn.execution import engines

CPU = torch.device("cpu")
SMALL = {"mdp1000": {"states": 20, "noise": 0.5, "final": 2}, "chain": {"slip": 0.2}, "deepsea": {"size": 4}}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(params=WORLDS)
def world(request):
    return WORLDS[request.param](**SMALL.get(request.param, {}))


@pytest.mark.parametrize("num_envs", [1, 7])
def test_shapes_dtypes_and_that_nothing_given_is_written(world, num_envs):
    generator, spec = seeded(), world.spec
    state = world.reset(num_envs, generator, CPU)
    for _ in range(12):  # after an end too
        action = torch.randint(spec.num_actions, (num_envs,), generator=generator)
        given = {**state, "action": action}
        kept = {name: x.clone() for name, x in given.items()}
        new, reward, ended = world.step(state, action, generator)
        obs = world.observe(new)
        assert all(torch.equal(given[name], kept[name]) for name in given)
        assert {k: (v.shape, v.dtype) for k, v in new.items()} == {k: (v.shape, v.dtype) for k, v in state.items()}
        assert all(x.shape[0] == num_envs for x in new.values())
        assert reward.shape == ended.shape == (num_envs,)
        assert (reward.dtype, ended.dtype) == (torch.float32, torch.bool)
        assert obs.shape == (num_envs, *spec.obs_shape)
        assert obs.numpy().dtype == spec.obs_dtype
        assert obs.isfinite().all()
        assert obs.data_ptr() not in [x.data_ptr() for x in new.values()]  # states may be written over
        assert reward.isfinite().all()
        state = new


def functions(world, generator):
    """reset() → values of a state; step(action, *values) → them, and what is seen, rewarded and ended."""
    names = list(world.reset(1, seeded(), CPU))

    def step(action, *values):
        state, *episode_info = world.step(dict(zip(names, values, strict=True)), action, generator)
        return [*state.values(), world.observe(state), *episode_info]

    return (lambda: [*world.reset(5, generator, CPU).values()]), step, len(names)


def play(world, reset, step, entries):
    """All that happens in some steps of 5 environments with the same actions."""
    values, actions = reset(), seeded(1)
    seen = [*values]
    for _ in range(6):
        action = torch.randint(world.spec.num_actions, (5,), generator=actions)
        episode_info = step(action, *values)
        values = episode_info[:entries]
        seen += episode_info
    return seen


def test_a_seed_says_all_that_happens(world):
    one, same, other = (play(world, *functions(world, seeded(seed))) for seed in (3, 3, 4))
    assert all(map(torch.equal, one, same))
    assert isinstance(world, DeepSea) or not all(map(torch.equal, one, other))


def test_every_call_draws_the_same_number(world):
    after = []
    for action in range(2):
        generator = seeded()
        world.step(world.reset(5, seeded(action), CPU), torch.full((5,), action), generator)
        after.append(generator.get_state())
    assert torch.equal(*after)


def test_recorded_is_as_written(world, recorded_only):
    """Also that nothing is asked of the device: a recording has no numbers to answer with."""
    mine, theirs, engine = seeded(5), seeded(5), engines.Compiled(CPU, 0)
    reset, step, entries = functions(world, mine)
    programs = engine.capture(reset), engine.capture(step)
    recorded = play(world, *programs, entries)
    for program in programs:  # none fell back on the function as written
        assert program.ready
        assert program.step not in program.ready.values()
    assert all(map(torch.equal, recorded, play(world, *functions(world, theirs))))
    assert torch.equal(mine.get_state(), theirs.get_state())


def test_tables_are_copied_once_to_a_device_but_never_by_a_recording():
    tables, elsewhere = Tables(right=torch.arange(3)), torch.device("meta")
    with torch._subclasses.fake_tensor.FakeTensorMode(allow_non_fake_inputs=True):
        assert tables.on(elsewhere)["right"].device == elsewhere
    assert list(tables.copies) == [CPU]
    assert tables.on(elsewhere) is tables.on(elsewhere)


def test_limits_are_those_registered_with_gymnasium():
    limits = {name: WORLDS[name](**SMALL.get(name, {})).limit for name in WORLDS}
    assert limits == {"cartpole": 500, "acrobot": 500, "mountaincar": 200, "catch": 0, "deepsea": 0, "mdp1000": 100,
                      "chain": 50}  # fmt: skip
    assert WORLDS["mdp1000"]().spec.states == 1000


def test_bad_worlds_are_refused():
    for bad in (lambda: Catch(1), lambda: Catch(columns=0), lambda: DeepSea(1), lambda: CartPole(torch.float16),
                lambda: Tabular(RandomMDP(5, 2, 2, legal=0.5))):  # fmt: skip
        with pytest.raises(ValueError, match=r"needs|takes"):
            bad()
