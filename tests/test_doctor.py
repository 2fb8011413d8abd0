"""dqn.doctor: what is wrong with an environment is named, whatever it does, and nothing else is."""

import json
import time

import pytest
from conftest import here, world

from dqn import doctor
from dqn.doctor import look

HOSTILE = ["env=gym", "env.imports=[hostile]"]
BROKEN = {  # what is looked at, and what must be said
    "a step of the old API": (world("test/OldStep-v0"), "five values"),
    "a reset of the old API": (world("test/OldReset-v0"), "reset"),
    "a reset without a seed": (world("test/OldSeed-v0"), "seed"),
    "an error in a step": (world("test/Raising-v0"), "raised"),
    "a reward that is NaN": (world("test/Unlearnable-v0", "+env.kwargs.value=nan"), "reward"),
    "an observation that is not finite": (world("test/Unlearnable-v0", "+env.kwargs.what=observation"), "not finite"),
    "no seed is kept": (world("test/Shaky-v0"), "differ at step"),
    "no end and no limit": (["env=gym", "env.id=CliffWalking-v1"], "no time limit"),
    "continuous actions": (["env=gym", "env.id=Pendulum-v1"], "continuous actions"),
    "an unknown id": (["env=gym", "env.id=NoSuchWorld-v0"], "cannot be made"),
    "no package": (["env=gym", "env.id=X-v0", "env.imports=[no_such_package]"], "no_such_package"),
    "an unknown option": (["env=cartpole", "env.nmu_envs=3"], "is not an option"),
    "an exit in its constructor": ([*HOSTILE, "env.id=hostile/Exiting-v0", "+env.kwargs.where=init"], "SystemExit"),
    "an exit in a step": ([*HOSTILE, "env.id=hostile/Exiting-v0", "+env.kwargs.where=step"], "SystemExit"),
}  # fmt: skip


def found(tmp_path, words):
    look(tmp_path / "table", words)
    lines = [json.loads(line) for line in (tmp_path / "table").read_text().splitlines()]
    assert lines.pop()["what"] == "end"
    return lines


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_wrong_is_named(tmp_path, name):
    words, says = BROKEN[name]
    wrong = [one for one in found(tmp_path, words) if one["how"] == "wrong"]
    assert wrong and any(says in f"{one['what']} {one['advice']}" for one in wrong), wrong
    assert not any("Traceback" in one["what"] for one in wrong)


@pytest.mark.parametrize("words", [["env=cartpole"], ["env=tensor_breakout"], ["env=atari"]], ids=str)
def test_nothing_is_wrong_with_what_is_whole(tmp_path, words):
    lines = found(tmp_path, words)
    assert [one for one in lines if one["how"] == "wrong"] == []
    said = " ".join(one["what"] for one in lines)
    assert "torso" in said and "steps a second" in said and "with one seed are the same" in said


def test_an_environment_that_hangs_is_given_up():
    begun = time.monotonic()
    code, out, errors = here(doctor, *HOSTILE, "env.id=hostile/Hanging-v0", "limit=15")
    assert code == 1 and "did not answer within 15 seconds" in out and not errors
    assert time.monotonic() - begun < 100


def test_the_machine_is_looked_at():
    code, out, _ = here(doctor)
    assert code == 0 and "a matrix product there is right" in out and "GiB of memory are free" in out
    code, _, errors = here(doctor, "cartpole")
    assert code == 2 and "cartpole is not an option" in errors
