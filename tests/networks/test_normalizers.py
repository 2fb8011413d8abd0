"""The normaliser is a part of the network: what acts, learns, evaluates or is loaded sees by the same statistics."""

import copy

import numpy as np
import pytest
import torch
from conftest import configure, world
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import Counting

import dqn
from dqn.config.resume import stored_text
from dqn.errors import UsageError
from dqn.execution.small import record_small
from dqn.networks.normalizers import Running, Statistics
from dqn.seeding import parameter_hash
from dqn.tracking.logger import start_text_log
from dqn.types import MASK, Spec

F4, U1, B1, I8 = (np.dtype(name) for name in ("float32", "uint8", "bool", "int64"))
RUNNING = "normalizer=running"
FEW = ["steps=300", "learning_starts=100", "tuned.hidden=[8]"]


def gathered(blocks, decided, shape=(2,)):
    statistics = Statistics(shape, 0.0)
    for block, mask in zip(blocks, decided, strict=True):
        statistics.gather(block, mask)
    statistics.refresh()
    return statistics


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1e3, 1e9]), st.sampled_from([1.0, 1e-3, 1e4]), st.integers(1, 5)
)
def test_mean_and_variance_are_those_of_all_that_was_acted_on_however_it_came(seed, offset, scale, envs):
    """Also far from zero, where a sum of squares would lose all its digits; and to the last bit wherever it is cut."""
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(offset + scale * rng.standard_normal((23, envs, 2)))
    decided = torch.from_numpy(rng.random((23, envs)) < 0.8)
    whole = gathered([x], [decided])
    cuts = tuple(sorted(rng.integers(0, 24, 4).tolist()))
    pieces = gathered(x.tensor_split(cuts), decided.tensor_split(cuts))
    assert parameter_hash(whole.state_dict()) == parameter_hash(pieces.state_dict())
    seen = x.numpy()[decided.numpy()]  # the oracle: all of it at once
    assert int(whole.count) == len(seen)
    if len(seen) > 2:
        np.testing.assert_allclose(whole.average, seen.mean(0), rtol=1e-12)
        np.testing.assert_allclose(whole.squares / whole.count, seen.var(0), rtol=1e-6, atol=1e-14 * offset * scale)


def test_what_is_not_known_is_seen_as_it_is_and_what_is_far_is_cut():
    norm = Running(Spec((2,), F4, 3))
    x = torch.tensor([[3.0, -4.0]])
    assert torch.equal(norm(x), x)
    norm.refresh()  # nothing was counted
    assert torch.equal(norm(x), x)
    norm.gather(torch.tensor([[[0.0, 5.0]], [[2.0, 5.0]]]), torch.ones(2, 1, dtype=torch.bool))
    assert torch.equal(norm(x), x)  # what is counted is taken over by a refresh
    norm.refresh()
    torch.testing.assert_close(norm(torch.tensor([[2.0, 5.0], [100.0, 5.1]])), torch.tensor([[1.0, 0.0], [10.0, 10.0]]))


def test_only_real_numbers_are_normalised():
    parts = (
        ("image", Spec((3, 3), U1, 2)),
        ("own.v", Spec((2,), F4, 2)),
        ("n", Spec((), I8, 2, 5)),
        ("x", Spec((), F4, 2)),
    )
    norm = Running(Spec((0,), U1, 2, 0, parts))
    seen = {
        "image": torch.full((4, 2, 3, 3), 9, dtype=torch.uint8), "own.v": torch.randn(4, 2, 2) + 7,
        "n": torch.full((4, 2), 3), "x": torch.randn(4, 2) * 5,
    }  # fmt: skip
    norm.gather(seen, torch.ones(4, 2, dtype=torch.bool))
    norm.refresh()
    got = norm(seen)
    assert got["image"] is seen["image"] and got["n"] is seen["n"]
    for name in ("own.v", "x"):
        torch.testing.assert_close(got[name].mean((0, 1)), torch.zeros(seen[name].shape[2:]), atol=1e-5, rtol=0)
        torch.testing.assert_close(got[name].var((0, 1), correction=0), torch.ones(seen[name].shape[2:]))


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (world("test/Image-v0", "replay.capacity=100"), "normalises real numbers, and all that is observed are bytes"),
        (["env=chain"], "set normalizer=none"),
        (["algorithm=cql", "replay.path=nowhere"], "replay=dataset collects nothing: set normalizer=none"),
        (["normalizer.clip=0"], "normalizer.clip and normalizer.eps must be > 0"),
        (["normalizer.eps=-1"], "normalizer.clip and normalizer.eps must be > 0"),
    ],
)
def test_where_it_makes_no_sense_it_is_refused(wired, overrides, says, monkeypatch):
    with pytest.raises(UsageError, match=says):
        wired(RUNNING, *overrides)


@pytest.mark.parametrize("autoreset", ["same_step", "next_step", "disabled"])
@pytest.mark.parametrize("num_envs", [1, 3])
def test_it_counts_every_observation_that_was_acted_on_and_no_other(wired, num_envs, autoreset):
    """The world notes what it was shown to act on. What was played after the last learning phase waits."""
    Counting.PLAYED.clear()
    run = wired(*world("test/Counting-v0", "+env.kwargs.lengths=[3,1,5]"), RUNNING, *FEW, "train_every=25",
                f"env.num_envs={num_envs}", f"env.autoreset={autoreset}", "tracking.log_every=7")  # fmt: skip
    run.trainer.run()
    (statistics,) = run.trainer.learner.online.normalizer.statistics
    played = np.array([row[:3] for row in Counting.PLAYED])
    assert int(statistics.count) == len(played) == run.trainer.env_steps
    np.testing.assert_allclose(statistics.average, played.mean(0), rtol=1e-9)
    np.testing.assert_allclose(statistics.squares / len(played), played.var(0), rtol=1e-9)
    np.testing.assert_allclose(statistics.mean, statistics.average, rtol=1e-6)  # the last phase was at the last step


@pytest.mark.parametrize("num_envs", [1, 3])
def test_how_often_one_logs_evaluates_or_saves_changes_nothing(wired, num_envs):
    hashes = set()
    for every in (7, 50, 1000):
        run = wired(*world("test/Scaled-v0"), RUNNING, *FEW, "train_every=10", f"env.num_envs={num_envs}",
                    f"tracking.log_every={every}", f"tracking.evaluate_every={5 * every}")  # fmt: skip
        run.trainer.run()
        hashes.add(parameter_hash(run.trainer.learner.state()))
    assert len(hashes) == 1


def test_the_target_network_has_the_same_one_and_a_sync_leaves_it_alone(wired):
    learner = wired(*world("test/Scaled-v0"), RUNNING, *FEW).trainer.learner
    assert learner.target.normalizer is learner.online.normalizer
    assert learner.target.torso is not learner.online.torso
    learner.online.normalizer.statistics[0].average.fill_(3.0)
    learner.sync_target()
    assert (learner.online.normalizer.statistics[0].average == 3).all()
    alone = copy.deepcopy(learner.online)  # any other copy is one of its own
    assert alone.normalizer is not learner.online.normalizer


def test_between_two_learning_phases_the_network_stays_the_function_that_it_is(wired):
    trainer = wired(*world("test/Scaled-v0"), RUNNING, *FEW, "train_every=50").trainer
    network, obs, seen = trainer.learner.online, torch.ones(1, 2) * 1e5, []
    store = trainer.store

    def watched(rows):
        before = network(obs).q
        store(rows)
        seen.append(torch.equal(network(obs).q, before))

    trainer.store = watched
    trainer.run()
    assert len(seen) > 4 and all(seen)


def test_an_evaluation_changes_nothing_and_a_loaded_agent_sees_as_it_does(wired):
    options = [*world("test/Scaled-v0"), RUNNING, *FEW]
    run = wired(*options)
    run.trainer.run()
    before = parameter_hash(run.trainer.learner.online.state_dict())
    run.trainer.evaluate(5)
    assert parameter_hash(run.trainer.learner.online.state_dict()) == before
    (run.trainer.directory / "config.yaml").write_text(stored_text(configure(*options)))
    agent = dqn.load(str(run.trainer.directory), trust=["worlds"])
    obs = np.array([1.05e5, -0.97e5], np.float32)
    assert parameter_hash(agent.network.state_dict()) == before
    assert np.array_equal(agent.q(obs), run.trainer.learner.online(torch.from_numpy(obs[None])).q[0].detach().numpy())


def test_the_policy_stays_in_numpy_and_reads_the_statistics_of_the_moment(wired):
    trainer = wired(*world("test/Scaled-v0"), RUNNING, *FEW, "exploration.epsilon=0.0", "execution=eager").trainer
    actor, network = trainer.actor, trainer.learner.online
    places = np.random.default_rng(0).uniform(-1, 1, (50, 1, 2)).astype(np.float32) * 1e4 + 1e5
    program = record_small(actor.policy, places[0], actor.before)
    for _ in range(2):
        with torch.no_grad():
            written = [int(network(torch.from_numpy(obs)).q.argmax()) for obs in places]
        assert [int(program(obs, actor.before)[0][0]) for obs in places] == written
        rows = torch.from_numpy(places)
        network.normalizer.gather(rows, torch.ones(50, 1, dtype=torch.bool))
        network.normalizer.refresh()
    assert len({*written}) > 1


DICTS = world("test/DictImage-v0", "+env.kwargs.masked=true", "+env.kwargs.size=6", "replay.capacity=500")
SEQUENCES = ["replay.length=6", "replay.burn_in=2", "replay.stride=1", "replay.batch_size=4", "core.hidden=8"]
KINDS = {
    "vectors": ["env=cartpole"],
    "dicts": DICTS,
    "tensors": ["env=tensor_cartpole", "env.num_envs=4"],
    "sequences": ["algorithm=r2d2", "env=tmaze", *SEQUENCES],
    "rollouts": ["algorithm=pqn", "env=cartpole", "passes.minibatches=4"],
    "noise": ["algorithm=rainbow", "env=cartpole"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_it_goes_with_every_kind_of_world_and_engine(wired, kind, recorded_only, caplog):
    states = []
    for engine in ("eager", "compile"):
        run = wired(*KINDS[kind], RUNNING, "steps=400", "learning_starts=100", f"execution={engine}")
        run.trainer.run()
        assert run.trainer.updates > 0
        norm = run.trainer.learner.online.normalizer
        assert MASK not in norm.names
        assert all(int(one.count) > 50 for one in norm.statistics)
        states.append({k: v for k, v in run.trainer.learner.state().items() if "normalizer" in k})
    if kind == "vectors":  # elsewhere a last bit may decide which action is taken
        for name, tensor in states[0].items():
            torch.testing.assert_close(tensor, states[1][name], msg=name)
    assert [r.message for r in caplog.records if "Falling back" in r.message] == []


def test_a_world_far_from_the_unit_scale_is_learnt_with_it_and_not_without(wired):
    scores = {}
    for choice in ("none", "running"):
        run = wired(*world("test/Scaled-v0"), f"normalizer={choice}", "steps=3000", "learning_starts=200", "gamma=0.0",
                    "env.num_envs=4", "tuned.hidden=[32]", "optimizer.lr=3e-3", "tuned.epsilon_steps=1000")  # fmt: skip
        run.trainer.run()
        scores[choice] = run.trainer.evaluate(200)["mean"]
    assert scores["running"] > 0.9
    assert scores["none"] < 0.6


SIZES = {
    "floats": ["+env.kwargs.scale=1e6", "+env.kwargs.offset=0"],
    "whole numbers": ["+env.kwargs.dtype=int64", f"+env.kwargs.scale={2**40}", "+env.kwargs.offset=0"],
    "depth": ["+env.kwargs.dtype=uint16", "+env.kwargs.scale=30000", "+env.kwargs.offset=32000"],
    "an entry": ["+env.kwargs.as_dict=true"],
}


@pytest.mark.parametrize("choice", ["none", "running"])
@pytest.mark.parametrize("kind", SIZES)
def test_observations_far_from_the_unit_scale_are_named_and_not_called_overestimation(wired, capsys, kind, choice):
    said = ["tracking.log_every=50", *FEW, "optimizer.lr=1.0" if choice == "none" else "optimizer.lr=1e-3"]
    run = wired(*world("test/Scaled-v0"), *SIZES[kind], f"normalizer={choice}", *said)
    start_text_log(None)  # to the stdout that is captured now
    run.trainer.run()
    what = "The entry `place` of the observation" if kind == "an entry" else "The observation"
    out = capsys.readouterr().out
    assert out.count(f"{what} reaches ") == (1 if choice == "none" else 0)
    assert ("set normalizer=running" in out) == (choice == "none")
    assert "overestimating" not in out or choice == "running"


@pytest.mark.parametrize("env", ["cartpole", "acrobot", "mountaincar"])
def test_classic_control_is_near_enough(wired, capsys, env):
    run = wired(f"env={env}", "steps=300", "learning_starts=100", "tracking.log_every=50")
    start_text_log(None)
    run.trainer.run()
    assert "normalizer=running" not in capsys.readouterr().out


@pytest.mark.gpu
@pytest.mark.parametrize("env", ["env=cartpole", "env=tensor_cartpole"])
def test_on_a_gpu_it_is_captured_with_the_rest_and_counts_the_same(wired, env, caplog):
    counted = []
    for place in (["device=cpu"], ["device=cuda", "execution=cudagraph"]):
        steps = ["env.num_envs=4", "steps=120", "learning_starts=40", "exploration.epsilon=1.0"]
        run = wired(env, RUNNING, *steps, "tuned.hidden=[8]", *place)
        run.trainer.run()
        (statistics,) = run.trainer.learner.online.normalizer.statistics
        counted.append((int(statistics.count), statistics.mean.device.type))
    assert counted == [(120, "cpu"), (120, "cuda")]
    assert [r.message for r in caplog.records if "Falling back" in r.message] == []
