"""Numbers tuned for an environment are found by its id, and said in the summary; a run's directory carries the id."""

import json
import re

import pytest
from conftest import configure, here
from omegaconf import OmegaConf

from dqn import train
from dqn.config.cli import CONF
from dqn.config.tuned import directory_word, world_of

BRIEF = ["steps=40", "learning_starts=20", "tracking.final_episodes=1", "tracking.evaluate_every=0", "execution=eager",
         "torso.hidden=[4]"]  # fmt: skip


def trained(at, *arguments):
    """The options of a run, without what names its environment's group and the time of day, and its output."""
    code, out, errors = here(train, *arguments, *BRIEF, at=at)
    assert code == 0, errors
    (directory,) = (line.split()[-1] for line in out.splitlines() if line.startswith("  run "))
    cfg = OmegaConf.load(f"{directory}/config.yaml")
    del cfg["run"], cfg["chosen"]
    return cfg, out, directory


def card(out, name):
    (line,) = (line for line in out.splitlines() if line.startswith(f"  {name} "))
    return line.split(None, 1)[1]


@pytest.mark.parametrize("name", ["cartpole", "acrobot", "mountaincar"])
@pytest.mark.parametrize("algorithm", ["dqn", "pqn"])
def test_an_id_finds_the_numbers_of_its_group(tmp_path, algorithm, name):
    """With env=gym and without, the run is that of the group, to the last number."""
    id = OmegaConf.load(CONF / "env" / f"{name}.yaml").id
    small = ["passes.minibatches=4"] if algorithm == "pqn" else []
    known, out, _ = trained(tmp_path, f"algorithm={algorithm}", f"env={name}", *small)
    pair = f", conf/experiment/pqn_{name}.yaml" if algorithm == "pqn" else ""
    assert card(out, "numbers") == f"conf/tuned/{name}.yaml{pair}"
    for chosen in (["env=gym", f"env.id={id}"], [f"env.id={id}"], ["env=chain", f"env.id={id}", "env.imports=[]"]):
        found, said, _ = trained(tmp_path, f"algorithm={algorithm}", *chosen, *small)
        assert found == known
        assert card(said, "numbers") == card(out, "numbers")


@pytest.mark.parametrize(
    ("arguments", "numbers"),
    [
        (["env=gym", "env.id=FrozenLake-v1"], "none tuned for FrozenLake-v1: conf/config.yaml"),
        (["env.id=FrozenLake-v1"], "none tuned for FrozenLake-v1: conf/config.yaml"),  # not those of CartPole
        (["env=gym", "env.id=CartPole-v0"], "none tuned for CartPole-v0: conf/config.yaml"),  # another time limit
        (["env=gym", "env.id=CartPole-v1", "tuned=none"], "none tuned for CartPole-v1: conf/config.yaml"),
        (["env=gym", "env.id=CartPole-v1", "tuned=acrobot"], "conf/tuned/acrobot.yaml"),
        (["env=gym", "env.id=CartPole-v1", "env.num_envs=2", "n_step=2"], "conf/tuned/cartpole.yaml"),
        (["env=gym", "env.id=CartPole-v1", "algorithm=pqn", "experiment=none", "passes.minibatches=4"],
         "conf/tuned/cartpole.yaml"),
        (["env=cartpole_hidden"], "none tuned for dqn/CartPoleHidden-v1: conf/config.yaml"),
    ],
)  # fmt: skip
def test_what_is_chosen_on_the_command_line_stands(tmp_path, arguments, numbers):
    cfg, out, _ = trained(tmp_path, *arguments)
    assert card(out, "numbers") == numbers
    for argument in arguments:
        name, _, value = argument.partition("=")
        if "." in name or name == "n_step":
            assert str(OmegaConf.select(cfg, name)) == value


def test_every_job_of_a_sweep_has_the_numbers_of_its_own_environment(tmp_path):
    code, _, errors = here(train, "-m", "env=gym", "env.id=CartPole-v1,MountainCar-v0,FrozenLake-v1",
                           "hydra.sweep.dir=sweep", *BRIEF, at=tmp_path)  # fmt: skip
    assert code == 0, errors
    found = {}
    for path in (tmp_path / "sweep").glob("*/config.yaml"):
        cfg = OmegaConf.load(path)
        found[cfg.env.id] = (cfg.tuned.for_env, cfg.gamma, cfg.n_step)
    assert found == {
        "CartPole-v1": ("cartpole", 0.99, 5), "MountainCar-v0": ("mountaincar", 0.98, 3),
        "FrozenLake-v1": ("none", 0.99, 1),
    }  # fmt: skip


def test_a_resume_keeps_the_numbers_that_the_run_has(tmp_path):
    arguments = ["env=gym", "env.id=CartPole-v1", "tuned=none", "run.dir=runs/mine"]
    before, _, directory = trained(tmp_path, *arguments)
    code, out, errors = here(train, f"resume={directory}", "steps=60", at=tmp_path)
    assert code == 0, errors
    after = OmegaConf.load(f"{directory}/config.yaml")
    assert (after.n_step, after.tuned, after.steps) == (before.n_step, before.tuned, 60)
    assert "none tuned for CartPole-v1" in out
    assert json.loads((tmp_path / "runs/mine/result.json").read_text())["env_steps"] == 60


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["env=cartpole"], "dqn-CartPole-v1-seed0-"), (["env=gym", "env.id=FrozenLake-v1"], "dqn-FrozenLake-v1-seed0-"),
        (["env=chain", "algorithm=tabular", "seed=3"], "tabular-dqn-Chain-v0-seed3-"),
        (["env=tensor_chain"], "dqn-tensor_chain-seed0-"),
    ],
)  # fmt: skip
def test_the_directory_of_a_run_carries_the_id(tmp_path, arguments, word):
    brief = [option for option in BRIEF if not option.startswith("torso") or "algorithm=tabular" not in arguments]
    code, out, errors = here(train, *arguments, *brief, at=tmp_path)
    assert code == 0, errors
    assert re.search(rf"/runs/{re.escape(word)}\d{{8}}-", card(out, "run"))


def test_words_of_a_directory_are_letters_that_every_system_takes():
    for id, word in (("ALE/Pong-v5", "ALE-Pong-v5"), ("mine:Own-v0", "mine-Own-v0"), ("a b\\c-v1", "a-b-c-v1")):
        assert directory_word(OmegaConf.create({"id": id}), "gym") == word
    assert directory_word(OmegaConf.create({"id": "???"}), "gym") == "gym"


@pytest.mark.parametrize(
    ("chosen", "id", "vectorization", "world"),
    [
        ("atari", "ALE/Pong-v5", "vector_entry_point", "atari"),
        ("atari", "ALE/Tennis-v5", "vector_entry_point", "atari"),
        ("gym", "ALE/Pong-v5", "sync", None), ("gym", "LunarLander-v3", "sync", "lunarlander"),
        ("gym", "LunarLander-v3", "async", "lunarlander"), ("tmaze", "dqn/Chain-v0", "sync", "chain"),
        ("gym", "dqn/TMaze-v0", "sync", "tmaze"), ("cartpole", "Other-v0", "sync", None),
    ],
)  # fmt: skip
def test_a_group_is_known_by_its_id_and_by_the_way_it_is_made(chosen, id, vectorization, world):
    """Atari's numbers are for what its vector class shows, whatever the game; the raw frames are another world."""
    assert world_of(OmegaConf.create({"id": id, "vectorization": vectorization}), chosen) == world


def test_raw_atari_is_told_of_the_preprocessing(wired):
    pytest.importorskip("ale_py")
    raw = ["env=gym", "env.id=ALE/Pong-v5", "env.imports=[ale_py]", "replay.capacity=300"]
    assert any("env=atari brings the preprocessing" in doubt for doubt in wired(*raw).warnings)
    assert not any("env=atari" in doubt for doubt in wired("env=atari", "replay.capacity=300").warnings)


def test_every_file_of_tuned_numbers_names_itself():
    """The card reads it from there."""
    for group, option in (("tuned", "for_env"), ("experiment", "for_pair")):
        for path in (CONF / group).glob("*.yaml"):
            named = OmegaConf.load(path).get("tuned", {}).get(option, "none")
            assert named == path.stem
    assert (configure().tuned.for_env, configure("tuned=none").tuned.for_env) == ("cartpole", "none")
