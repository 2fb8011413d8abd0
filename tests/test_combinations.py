"""Every pair of switches learns, is saved, continues exactly and is evaluated, or is refused in one sentence.

The configurations are a covering array: each names one level of every axis, and every pair of levels that is not in
REFUSED lies in at least one of them. No configuration holds a refused pair, so a refusal hides nothing.
"""

import re
from dataclasses import replace
from itertools import combinations, product
from random import Random

import pytest
import torch
from conftest import configure, world

from dqn.config import build
from dqn.errors import UsageError
from dqn.seeding import parameter_hash
from dqn.state import pack
from dqn.tracking.checkpoint import Checkpoints
from dqn.tracking.logger import start_text_log

ENVS, LENGTH, UPDATES, MORE = 2, 4, 50, 5
OFFLINE = [f"steps={UPDATES}", "learning_starts=0", "train_every=1"]
PHASES = [f"steps={24 + 2 * UPDATES}", "learning_starts=24", "train_every=2", "replay.capacity=64"]
ROLLOUTS = [f"steps={UPDATES * ENVS * LENGTH}", "learning_starts=0", f"train_every={ENVS * LENGTH}"]
SEQUENCE = f"replay.length={LENGTH}"
TINY = ["device=cpu", f"env.num_envs={ENVS}", "env.max_episode_steps=5", "+env.kwargs.lengths=[3,7,1]",
        "torso.hidden=[8]", "torso.norm=layer", "tuned.batch_size=8", "tuned.quantiles=4", "tuned.samples=4",
        "tuned.epsilon_steps=50"]  # fmt: skip


def levels(axis, *names, **extra):
    """Level → overrides for choices of one group, some with overrides of their own."""
    return {name: [f"{axis}={name}", *extra.get(name, [])] for name in names}


CORE = {name: ["core.hidden=4"] for name in ("lstm", "gru")}
AXES = {
    "head": levels(
        "head", "expected", "categorical", "hl_gauss", "quantile", "implicit_quantile", "full_quantile",
        categorical=["head.atoms=11"], hl_gauss=["head.bins=11"],
        implicit_quantile=["head.cosines=4", "head.midpoints=4"], full_quantile=["head.cosines=4", "head.atoms=4"],
    ),
    "backup": levels("backup", "q_learning", "double_q", "expected_sarsa", "soft", "munchausen"),
    "output": levels("output", "single", "dueling", dueling=["output.hidden=[8]"]),
    "layer": levels("layer", "linear", "noisy", "spectral"),
    "returns": {"one_step": ["n_step=1"], "n_step": ["n_step=3"], "lambda": ["lambda_=0.7", SEQUENCE]},
    "replay": {
        "uniform": ["replay=uniform", *PHASES],
        "prioritized": ["replay=prioritized", *PHASES],
        "rollout": ["replay=rollout", SEQUENCE, *ROLLOUTS],
        "sequences": ["replay=uniform", SEQUENCE, *PHASES],
        "dataset": ["replay=dataset", *OFFLINE],
    },
    "exploration": levels(
        "exploration", "epsilon_greedy", "epsilon_exponential", "epsilon_ladder", "boltzmann", "greedy"
    ),
    "core": levels("core", "none", "lstm", "gru", **CORE),
    "transform": levels("transform", "identity", "signed_hyperbolic"),
    "target": levels("target", "period", "polyak", "none", period=["target.period=20"]),
    "terms": levels("terms", "none", "conservative", "cloning"),
    "mask": {"unmasked": world("test/Counting-v0"), "masked": world("test/Masked-v0")},
}  # fmt: skip
REFUSED = {  # what cannot be meant together, and what the sentence must tell to change
    **{
        frozenset({("returns", "lambda"), ("head", head)}): "head=expected or hl_gauss"
        for head in ("categorical", "quantile", "implicit_quantile", "full_quantile")
    },
    frozenset({("returns", "n_step"), ("replay", "rollout")}): "n_step=1",
    frozenset({("replay", "dataset"), ("core", "lstm")}): "core=none",
    frozenset({("replay", "dataset"), ("core", "gru")}): "core=none",
}
BESIDE = {  # the same for numbers, which are no axes
    ("lambda_=0.7",): "replay.length above 1",
    ("lambda_=0.7", SEQUENCE, "n_step=3"): "n_step=1",
    ("replay=rollout", SEQUENCE, "train_every=3"): f"train_every={ENVS * LENGTH}",
    ("replay=rollout", SEQUENCE, f"train_every={ENVS * LENGTH}", "updates=2"): "updates=1",
    ("replay.burn_in=2",): "replay.burn_in=0",
    ("replay.stride=2",): "replay.stride=1",
    ("passes.epochs=2", "core=gru"): "core=none",
    ("passes.minibatches=2", "replay=prioritized"): "replay=uniform",
}


def pairs(configuration):
    return {frozenset(pair) for pair in combinations(configuration.items(), 2)}


def every_pair():
    axes = [[(axis, level) for level in named] for axis, named in AXES.items()]
    return {frozenset(pair) for a, b in combinations(axes, 2) for pair in product(a, b)}


def grown(pair, missing, random):
    """A configuration around one pair: axis by axis, in a random order, the level that covers most that is missing."""
    chosen = dict(pair)
    for axis in random.sample([*AXES], len(AXES)):
        if axis in chosen:
            continue
        best, most = "", -1
        for level in random.sample([*AXES[axis]], len(AXES[axis])):
            new = {frozenset({(axis, level), other}) for other in chosen.items()}
            if not new & REFUSED.keys() and len(new & missing) > most:
                best, most = level, len(new & missing)
        chosen[axis] = best
    return {axis: chosen[axis] for axis in AXES}


def covering_array(tries=20):
    """Configurations until every pair that is not refused is covered: always the best of a few that are grown around
    the first missing pair. Cohen et al. (1997), The AETG System."""
    missing, random, found = every_pair() - REFUSED.keys(), Random(0), []
    while missing:
        first = min(missing, key=sorted)
        grew = [grown(first, missing, random) for _ in range(tries)]
        found.append(max(grew, key=lambda configuration: len(pairs(configuration) & missing)))
        missing -= pairs(found[-1])
    return found


CONFIGURATIONS = covering_array()


def overrides(configuration, recorded):
    own = [part for axis, level in configuration.items() for part in AXES[axis][level]]
    data = [f"replay.path={recorded[configuration['mask']]}"] if configuration["replay"] == "dataset" else []
    return [*dict.fromkeys([*own, *TINY, *data])]


def first_levels(**changed):
    return {axis: next(iter(named)) for axis, named in AXES.items()} | changed


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The directories of two short runs, as data for others."""
    found = {}
    start_text_log(None)
    for mask in AXES["mask"]:
        found[mask] = tmp_path_factory.mktemp(mask)
        run = build.run(configure(*overrides(first_levels(mask=mask), {})), found[mask])
        run.trainer.run()
        run.close()
    return found


def fingerprints(trainer):
    """Everything that decides the future, each tensor as a hash of its bytes."""
    ring, held = trainer.memory.ring, vars(trainer.memory.sampler)  # also what its state() might have forgotten
    tensors = pack(trainer.parts) | {k: v for k, v in held.items() if torch.is_tensor(v)}
    tensors |= {f"row/{k}": v for k, v in ring.rows_since(torch.zeros_like(ring.written)).items()}
    return {name: parameter_hash({name: tensor}) for name, tensor in tensors.items()}


def learn_on(trainer):
    """The next MORE updates."""
    times, before = trainer.times, trainer.updates
    trainer.times = replace(times, steps=times.steps + MORE * times.train_every)
    trainer.run()
    assert trainer.updates == before + MORE


@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=lambda c: "-".join(c.values()))
def test_every_configuration_learns_continues_exactly_and_is_evaluated(wired, recorded, configuration):
    options = overrides(configuration, recorded)
    trainer, fresh = (wired(*options).trainer for _ in range(2))
    begin = fingerprints(trainer)
    trainer.run()
    assert trainer.updates >= UPDATES
    saved = fingerprints(trainer)
    state = trainer.learner.state()
    assert [k for k, v in state.items() if v.is_floating_point() and not v.isfinite().all()] == []
    names = [f"learner/online/{name}" for name, _ in trainer.learner.online.named_parameters()]
    assert [name for name in names if saved[name] == begin[name]] == []  # no parameter was left after

    assert fingerprints(fresh) == begin
    assert len([*fresh.restore(Checkpoints(trainer.directory / "checkpoints").load())]) == len(trainer.parts) + 2
    assert fingerprints(fresh) == saved
    for one in (trainer, fresh):
        learn_on(one)
    learnt = fingerprints(trainer)
    assert fingerprints(fresh) == learnt
    assert {name for name in names if learnt[name] != saved[name]} == {*names}

    result = trainer.evaluate(1)
    assert result == fresh.evaluate(1)
    assert fingerprints(trainer) == learnt  # an evaluation draws and changes nothing
    (length,), (score,) = result["lengths"], result["returns"]
    assert score == length * (length + 1) / 2 > 0  # the world's rewards are 1, 2, 3 …


def refusal(make, options):
    """The sentence of a refusal."""
    with pytest.raises(UsageError) as refused:
        make(*options)
    sentence = str(refused.value)
    assert sentence.endswith(".")
    assert len(re.split(r"\.\s|\n", sentence)) == 1
    return sentence


@pytest.mark.parametrize("pair", REFUSED, ids=lambda pair: "-".join(sorted(dict(pair).values())))
def test_a_pair_that_cannot_be_meant_is_refused_in_one_sentence(wired, recorded, pair):
    assert REFUSED[pair] in refusal(wired, overrides(first_levels(**dict(pair)), recorded))


@pytest.mark.parametrize("options", BESIDE, ids="-".join)
def test_numbers_that_cannot_be_meant_together_are_refused_in_one_sentence(wired, options):
    assert BESIDE[options] in refusal(wired, [*world("test/Counting-v0"), f"env.num_envs={ENVS}", *options])


def test_every_pair_is_covered_or_refused(capsys):
    everything = every_pair()
    assert everything > REFUSED.keys()
    assert set().union(*map(pairs, CONFIGURATIONS)) == everything - REFUSED.keys()
    assert all(configuration.keys() == AXES.keys() for configuration in CONFIGURATIONS)
    covered = len(everything) - len(REFUSED)
    with capsys.disabled():  # each configuration is a test of its own, in whichever process
        print(f"\npairs: {covered} covered by {len(CONFIGURATIONS)} configurations, {len(REFUSED)} pairs refused")
