"""A packed agent: one folder that acts as the run does, holds no replay memory, and executes nothing when opened."""

import json
import shutil

import numpy as np
import pytest
import yaml
from conftest import here, world
from omegaconf import OmegaConf

import dqn
from dqn import evaluate, pack, report, train
from dqn.reports.card import card, code
from dqn.reports.records import record

SHORT = ["steps=60", "learning_starts=20", "tracking.final_episodes=2", "tracking.evaluate_every=0", "execution=eager",
         "torso.hidden=[8]", "tuned.batch_size=8"]  # fmt: skip
KINDS = {".md", ".json", ".jsonl", ".yaml", ".safetensors", ".mp4", ".gif"}  # none of them is executed by what opens it
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run."""
    directory = tmp_path_factory.mktemp("runs") / "one"
    code, _, errors = here(train, *SHORT, f"run.dir={directory}")
    assert code == 0, errors
    return directory


@pytest.fixture(scope="module")
def packed(run):
    """It, packed."""
    (run / "video").mkdir()
    (run / "video/60-steps.mp4").write_bytes(b"the right weights")
    (run / "video/60-steps.gif").write_bytes(b"GIF89a of the right weights")
    (run / "video/20-steps.gif").write_bytes(b"GIF89a of earlier ones")
    folder = run.parent / "packed"
    code, out, errors = here(pack, f"run={run}", f"to={folder}", "license=mit")
    assert code == 0, errors
    assert f"hf upload USER/NAME {folder}" in out
    return folder


def front_and_body(folder):
    _, front, body = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), body


def test_a_packed_agent_acts_as_the_run_does(run, packed):
    mine, theirs = dqn.load(str(run)), dqn.load(str(packed))
    obs = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    assert np.array_equal(mine.q(obs), theirs.q(obs)) and mine.parameters_hash == theirs.parameters_hash
    assert theirs.result["evaluation"] == mine.result["evaluation"] and len(theirs.progress) == len(mine.progress)
    shutil.copytree(packed, packed.parent / "moved")
    code, out, errors = here(evaluate, f"run={packed.parent / 'moved'}", "episodes=2")
    assert code == 0 and "2 episodes at epsilon 0" in out, errors
    code, out, errors = here(report, packed.parent / "moved")
    assert code == 0 and "moved" in out, errors


def test_the_replay_memory_and_the_places_of_this_machine_stay(run, packed):
    files = [path for path in packed.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == KINDS
    size = sum(path.stat().st_size for path in packed.glob("checkpoints/*"))
    assert size < sum(path.stat().st_size for path in run.glob("checkpoints/*")) / 3
    for path in files:
        assert str(run.parent).encode() not in path.read_bytes(), path
    assert OmegaConf.load(packed / "config.yaml").run.dir == "packed"
    code, _, errors = here(train, f"resume={packed}", "steps=100")
    assert code == 2 and "without its replay memory" in errors


def test_help_names_every_option():
    _, out, _ = here(pack, "--help")
    assert out.startswith("usage: python -m dqn.pack ") and all(f"{name}=" in out for name in pack.OPTIONS)


def test_the_card_says_what_the_evaluation_found(run, packed):
    front, body = front_and_body(packed)
    evaluation = json.loads((run / "result.json").read_text())["evaluation"]
    (model,) = front["model-index"]
    (result,) = model["results"]
    (metric,) = result["metrics"]
    assert metric["type"] == "mean_reward"
    assert metric["value"] == f"{evaluation['mean']:.2f} +/- {evaluation['std']:.2f}"
    assert result["dataset"]["type"] == "CartPole-v1" and front["license"] == "mit"
    assert f"{evaluation['mean']:.2f} ± {evaluation['std']:.2f}" in body and "| `optimizer.lr` |" in body
    assert (packed / "replay.gif").read_bytes() == b"GIF89a of the right weights" and "](replay.gif)" in body


def test_the_hub_reads_the_card(packed):
    hub = pytest.importorskip("huggingface_hub", reason="pip install 'dqn-family[dev]'")
    read = hub.ModelCard.load(packed / "README.md")
    (found,) = read.data.eval_results
    assert (found.task_type, found.dataset_name) == ("reinforcement-learning", "CartPole-v1")
    assert found.metric_type == "mean_reward"
    assert read.data.library_name == "dqn-family" and "reinforcement-learning" in read.data.tags


def test_an_evaluation_of_other_weights_is_not_this_ones(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run/evaluation.json").write_text('{"episodes": 9, "mean": 7.0, "std": 1.0, "env_steps": 50}')
    result = json.loads((tmp_path / "run/result.json").read_text())
    (tmp_path / "run/result.json").write_text(json.dumps(result | {"parameter_hash": "another"}))
    code, out, errors = here(pack, f"run={tmp_path}/run", f"to={tmp_path}/a")
    assert code == 0 and "not yet" in out, errors
    front, body = front_and_body(tmp_path / "a")
    assert "model-index" not in front and "It was not evaluated" in body
    assert not (tmp_path / "a/result.json").exists() and not (tmp_path / "a/evaluation.json").exists()
    (tmp_path / "run/evaluation.json").write_text('{"episodes": 9, "mean": 7.0, "std": 1.0, "env_steps": 60}')
    code, _, errors = here(pack, f"run={tmp_path}/run", f"to={tmp_path}/b")
    assert code == 0 and "7.00 ± 1.00" in front_and_body(tmp_path / "b")[1], errors
    code, _, errors = here(pack, f"run={tmp_path}/run", f"to={tmp_path}/c", "episodes=3")
    assert code == 0 and "| episodes | 3, greedy |" in front_and_body(tmp_path / "c")[1], errors


def test_code_of_ones_own_must_be_trusted_to_pack_and_to_open(tmp_path):
    code, _, errors = here(train, *SHORT, *world("test/Counting-v0"), f"run.dir={tmp_path}/run")
    assert code == 0, errors
    code, _, errors = here(pack, f"run={tmp_path}/run", f"to={tmp_path}/packed")
    assert code == 2 and "trust=[worlds]" in errors
    code, _, errors = here(pack, f"run={tmp_path}/run", f"to={tmp_path}/packed", "trust=[worlds]")
    assert code == 0, errors
    assert "dqn.load(\"agent\", trust=['worlds'])" in front_and_body(tmp_path / "packed")[1]
    with pytest.raises(dqn.UsageError, match=r"trust=\[worlds\]"):
        dqn.load(str(tmp_path / "packed"))
    assert dqn.load(str(tmp_path / "packed"), trust=["worlds"]).act(np.zeros(3, np.float32)) in range(3)


def test_opening_a_packed_agent_that_was_tampered_with_executes_nothing(packed, tmp_path):
    made = tmp_path / "made"
    shutil.copytree(packed, tmp_path / "bad")
    config = tmp_path / "bad/config.yaml"
    text = config.read_text()
    for wrong in (
        text.replace("_target_: dqn.networks.heads.Expected", f"_target_: os.mkdir\n  path: {made}"),
        text.replace("seed: 0", f"seed: ${{oc.env:HOME,{made}}}"),
        f"hydra:\n  callbacks:\n    a: {{_target_: os.mkdir, path: {made}}}\n{text}",
    ):
        assert wrong != text
        config.write_text(wrong)
        with pytest.raises(dqn.UsageError):
            dqn.load(str(tmp_path / "bad"))
        code, _, errors = here(evaluate, f"run={tmp_path}/bad", "episodes=1")
        assert code == 2 and "Traceback" not in errors
    assert not made.exists()
    config.write_text(text)
    (tmp_path / "bad/checkpoints/000001-60.safetensors").write_bytes(b"cos\nsystem\n(S'true'\ntR.")  # a pickle
    with pytest.raises(dqn.UsageError, match="damaged"):
        dqn.load(str(tmp_path / "bad"))


def test_what_a_run_says_is_no_markup_in_its_card(run, tmp_path):
    found = record(run)
    found.options |= {"algorithm": f"`{HOSTILE}\n# big", "env.id": f"a: [b]\n{HOSTILE}|", "torso": HOSTILE}
    found.result = {"versions": {"<b>": "`x`\n\n<i>"}, "seconds": 3}
    evaluation = {"mean": 1.0, "std": 0.0, "episodes": 2, "env_steps": 60}
    _, front, body = card(found, evaluation, ["worlds"], False, None).split("---\n", 2)
    assert yaml.safe_load(front)["model-index"][0]["results"][0]["dataset"]["name"] == found.options["env.id"]
    for line in (one for one in body.splitlines() if not one.startswith("```")):
        outside = "".join(line.split("`")[::2])  # what is not in a code span
        assert "<" not in outside and line.count("`") % 2 == 0, line
    assert code("") == "`–`" and code("a`b\tc") == "`a'b c`"


def test_what_is_typed_wrongly_is_a_sentence(run, packed):
    for words, sentence in (
        ([f"run={run}"], "No folder was named"),
        ([f"run={run}", f"to={packed}"], "is not empty: name a new folder"),
        ([f"run={run}", f"to={run}/config.yaml"], "is not empty"),
        (["run=/nowhere", "to=x"], "is not a run's directory"),
        ([f"run={run}", "to=x", "episodes=0"], "episodes must be a whole number ≥ 1"),
    ):
        code, _, errors = here(pack, *words)
        assert code == 2 and sentence in errors and len(errors.strip().splitlines()) == 1, errors
