"""An exported policy says what its network says, and plays where neither torch nor this package can be imported."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import RECIPES, here, mostly_slow

import dqn
from dqn import export, train
from dqn.errors import UsageError
from dqn.types import ILLEGAL

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
pytest.importorskip("onnxruntime", reason="an export needs the extra export")

RUN = [
    "execution=eager", "tracking.evaluate_every=0", "tracking.checkpoint_every=0", "tracking.final_episodes=1",
    "steps=300", "learning_starts=50", "env.max_episode_steps=40",
]  # fmt: skip
ATARI = [
    "env=atari", "env.num_envs=2", "steps=60", "learning_starts=30", "replay.capacity=200", "replay.batch_size=4",
    "env.max_episode_steps=null", "tracking.final_episodes=0",
]  # fmt: skip
OWN = {  # the world of a recipe, and small numbers for it
    "tabular": ["env=chain", "learning_starts=0"],
    "r2d2": ["env=tmaze", "replay.length=8", "replay.burn_in=2", "replay.stride=4", "replay.batch_size=4"],
    "drqn": ["env=cartpole_hidden", "replay.batch_size=4"],
    "pqn": ["env.num_envs=4", "replay.length=8", "passes.minibatches=2", "steps=640", "learning_starts=0"],
    "der": ATARI,
    "btr": [*ATARI, "exploration.epsilon.steps=100"],
    "rainbow": [*ATARI, "execution.threads=1"],
    "cql": ["learning_starts=0"],
}
WORLD = '''
import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete


class Worn(gymnasium.Env):
    """An image, a place that counts from 5, real numbers and bits; pairs of actions, some of them illegal."""

    action_space = MultiDiscrete([2, 3], start=[1, 4], dtype=np.int32)

    def __init__(self, told=False):
        self.told = told
        entries = {"image": Box(0, 255, (10, 10, 3), np.uint8), "place": Discrete(4, start=5),
                   "q": Box(-np.inf, np.inf, (2,), np.float64), "bits": MultiBinary(3)}
        self.observation_space = Dict(entries if told else entries | {"action_mask": Box(0, 1, (2, 3), np.int8)})

    def _see(self):
        self.legal = self.np_random.random((2, 3)) < 0.6
        self.legal[self.np_random.integers(2), self.np_random.integers(3)] = True
        random, mask = self.np_random, self.legal.astype(np.int8)
        seen = {"image": random.integers(0, 256, (10, 10, 3), np.uint8), "place": int(random.integers(5, 9)),
                "q": random.normal(size=2), "bits": random.integers(0, 2, 3, np.int8)}
        return (seen, {"action_mask": mask}) if self.told else ({**seen, "action_mask": mask}, {})

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._see()

    def step(self, action):
        assert self.legal[action[0] - 1, action[1] - 4]
        reward = float(action[0] * action[1])
        obs, info = self._see()
        return obs, reward, False, False, info


gymnasium.register("Worn-v0", entry_point=Worn, max_episode_steps=40)
'''


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory for all runs, in which a module registers a world."""
    directory = tmp_path_factory.mktemp("exported")
    (directory / "worn.py").write_text(WORLD)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(directory))
        yield directory


def trained(place, name, *overrides):
    """The directory of a short run, trained once."""
    if not (place / name / "result.json").exists():
        code, _, errors = here(train, *RUN, *overrides, f"run.dir={place / name}", at=place)
        assert code == 0, errors
    return place / name


def exported(run, to, *options):
    """What export.json says, and what was printed."""
    code, said, errors = here(export, f"run={run}", f"to={to}", *options)
    assert code == 0, errors
    return json.loads((to / "export.json").read_text()), said


def returns_without(blocked, folder, episodes, at):
    """The returns of act.py in a process that cannot import some packages."""
    program = (
        f"import sys; [sys.modules.update({{name: None}}) for name in {blocked}]; sys.path.insert(0, {str(folder)!r})\n"
        f"import act, json; print(json.dumps(act.play({episodes})))"
    )
    return json.loads(ran_at_home(program, at))


def ran_at_home(program, at):
    """What a program prints whose home is empty, and stays so: onnxruntime would leave the device's id there."""
    (at / "home").mkdir(exist_ok=True)
    environment = {name: text for name, text in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=at,
        env=environment | {"HOME": str(at / "home"), "XDG_CACHE_HOME": str(at / "home")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [*(at / "home").rglob("*")] == []
    return done.stdout


def played(run, episodes, trust=()):
    """The returns of the agent itself in the same episodes."""
    agent = dqn.load(run, trust=trust)
    env, returns = agent.make(), []
    obs, info = env.reset(seed=0)
    while len(returns) < episodes:
        agent.begin()
        score, over = 0.0, False
        while not over:
            obs, reward, terminated, truncated, info = env.step(agent.act(obs, info.get("action_mask")))
            score, over = score + float(reward), terminated or truncated
        returns.append(score)
        obs, info = env.reset()
    return returns


def worn(told):
    """Overrides for the world above, whose mask is told in the info or shown in the Dict."""
    told = f"+env.kwargs.told={str(told).lower()}"
    return ["env=gym", "env.id=Worn-v0", "env.imports=[worn]", told, "normalizer=running", "tuned.cnn_hidden=16"]


@pytest.fixture(scope="module")
def cartpole(place):
    return trained(place, "cartpole")


def test_the_verb_writes_compares_quantizes_and_the_files_play_alone(place, cartpole):
    """All of it, on CartPole: without torch and without this package the same returns, to the last bit."""
    to = place / "all"
    about, said = exported(cartpole, to, "quantize=int8", "drop=1", "episodes=2", "trust=[]")
    assert {path.name for path in to.iterdir()} == {
        "policy.onnx", "policy.pt2", "policy.int8-dynamic.onnx", "policy.int8-static.onnx", "export.json", "act.py",
    }  # fmt: skip
    assert about["inputs"] == [{"name": "observation", "shape": [4], "dtype": "float32", "path": []}]
    for one in about["parity"].values():
        assert one["observations"] == 1000
        assert one["relative_difference"] < 1e-5
        assert one["equal_actions"] == 1
    assert {*about["int8"]} == {"float32", "int8-dynamic", "int8-static"}
    for name in ("int8-dynamic", "int8-static"):
        assert about["int8"][name]["bytes"] < about["int8"]["float32"]["bytes"] / 2
        assert 0.5 < about["int8"][name]["equal_actions"] <= 1
        assert name in said
    assert about["int8"]["float32"]["returns"] == dqn.load(cartpole).evaluate(2, progress=False)["returns"]
    assert returns_without(["torch", "dqn"], to, 3, place) == played(cartpole, 3)


def test_a_recurrent_policy_is_told_what_it_remembered(place):
    """R2D2, with the wrapper that shows the last action and reward: it lies beside the export."""
    run = trained(place, "r2d2", "algorithm=r2d2", "env=cartpole_hidden", *OWN["r2d2"][1:])
    about, _ = exported(run, place / "r2d2-out")
    assert about["state"] == {"core_state": dqn.load(run).network.state_size}
    assert [one["name"] for one in about["inputs"]] == ["last_action", "last_reward", "observation"]
    assert (place / "r2d2-out" / "last_step.py").is_file()
    assert returns_without(["torch", "dqn.agent"], place / "r2d2-out", 2, place) == played(run, 2)


@pytest.mark.parametrize("told", [True, False])
def test_entries_masks_and_actions_are_those_of_the_environment(place, told):
    """A Dict with bytes, numbers from 5, float64 and bits; a mask in the info or in the Dict; pairs of int32."""
    run = trained(place, f"worn-{told}", *worn(told))
    about, _ = exported(run, place / f"worn-{told}-out", "trust=[worn]")
    found = {one["name"]: (one["dtype"], one["shape"], one["path"]) for one in about["inputs"]}
    assert found == {
        "bits": ("int8", [3], ["bits"]),
        "image": ("uint8", [10, 10, 3], ["image"]),
        "observation.q": ("float64", [2], ["q"]),
        "place": ("int64", [], ["place"]),
        "action_mask": ("int8", [6], None) if told else ("int8", [2, 3], ["action_mask"]),
    }
    assert about["outputs"][0] == {"name": "action", "shape": [2], "dtype": "int32"}
    assert about["actions"] == [[1, 4], [1, 5], [1, 6], [2, 4], [2, 5], [2, 6]]
    assert returns_without(["torch", "dqn"], place / f"worn-{told}-out", 2, place) == played(run, 2, ["worn"])


def test_any_batch_and_illegal_actions(place):
    """One observation or hundreds, by ONNX as by torch.export; where an action is illegal its q is ILLEGAL."""
    import onnxruntime

    run = trained(place, "worn-True", *worn(told=True))
    to = place / "batches"
    about, _ = exported(run, to, "trust=[worn]")
    session, program = onnxruntime.InferenceSession(to / "policy.onnx"), torch.export.load(to / "policy.pt2").module()
    for batch in (1, 2, 300):
        given = {i["name"]: np.full((batch, *i["shape"]), 5, i["dtype"]) for i in about["inputs"]}
        given["action_mask"] = np.tile(np.array([0, 1, 0, 1, 0, 0], np.int8), (batch, 1))
        action, q = session.run(None, given)
        assert (q == ILLEGAL).tolist() == [[True, False, True, False, True, True]] * batch
        assert {tuple(row) for row in action.tolist()} <= {(1, 5), (2, 4)}
        np.testing.assert_allclose(program(*map(torch.from_numpy, given.values()))[1].numpy(), q, rtol=1e-5, atol=1e-5)


def test_a_world_without_a_script(place):
    """Tensor worlds are compared and exported, and no script that could make them is written."""
    run = trained(place, "catch", "env=tensor_catch", "env.num_envs=4")
    about, said = exported(run, place / "catch-out")
    assert about["env"] is None
    assert not (place / "catch-out" / "act.py").exists()
    assert "act.py" not in said


def test_without_its_environment_it_is_compared_on_samples(place):
    """Where the package that registers it is missing: of the space that the run has kept, legal actions at random."""
    run = Path(shutil.copytree(trained(place, "worn-True", *worn(told=True)), place / "moved"))
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("id: Worn-v0", "id: Gone-v0"))
    about, said = exported(run, place / "moved-out", "trust=[worn]")
    assert "samples of the observation space" in said
    assert about["parity"]["policy.onnx"]["observations"] == 1000


def test_files_that_differ_more_than_allowed_fail(place, cartpole):
    code, said, errors = here(export, f"run={cartpole}", f"to={place / 'strict'}", "tolerance=0")
    assert code == 1
    assert "policy.onnx differs from the network by" in errors
    assert "max |ΔQ|" in said
    assert "max_difference" in (place / "strict" / "export.json").read_text()  # beside the files, for whoever looks


def test_int8_that_loses_the_return_is_refused(place, cartpole, monkeypatch):
    """The files are gone; policy.onnx and its numbers stay."""
    from dqn.exports import folder as module

    def worse(agent, session, episodes):
        value = 100.0 if session.path.name == "policy.onnx" else 94.0
        numbers = {"parameters": 1, "bytes": 1, "us_1": 1.0, "us_32": 1.0, "std": 0.0, "returns": [value]}
        return {**numbers, "return": value}

    monkeypatch.setattr(module, "measured", worse)
    to = place / "refused"
    code, said, errors = here(export, f"run={cartpole}", f"to={to}", "quantize=int8")
    assert code == 1
    assert "int8 loses more than 5% of the return" in errors
    assert said.count("refused") == 2
    assert [path.name for path in to.glob("*.onnx")] == ["policy.onnx"]
    assert json.loads((to / "export.json").read_text())["int8"]["int8-static"]["kept"] is False
    code, *_ = here(export, f"run={cartpole}", f"to={place / 'allowed'}", "quantize=int8", "drop=0.06")
    assert code == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["quantize=int4"], "quantize=int4 is not known"),
        (["kl=0.3"], "kl is for the export of a run of env=lm"),
        (["tolerance=-1"], "tolerance must be a number"),
        (["to="], "No folder was named"),
    ],
)
def test_wrong_options_are_refused(place, cartpole, options, sentence):
    code, _, errors = here(export, f"run={cartpole}", f"to={place / 'wrong'}", *options)
    assert code == 2
    assert sentence in errors
    assert not (place / "wrong").exists()


def test_a_network_that_cannot_be_written_down_is_refused_in_a_sentence(tmp_path):
    """As a part of one's own that looks at numbers: the cause, and no pages of advice to torch's developers."""
    from torch import nn

    from dqn.exports.onnx_files import write

    class Looking(nn.Module):
        input_names, output_names = ("observation",), ("q",)

        def example(self, batch):
            return (torch.zeros(batch, 3),)

        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(UsageError, match=r"This network cannot be exported \(\w+: .{10,200}\): one of its parts"):
        write(Looking(), tmp_path / "policy.onnx")  # pyright: ignore[reportArgumentType]


def test_a_missing_library_is_named(place, cartpole, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UsageError, match=r"needs onnxscript: run pip install 'dqn-family\[export\]'"):
        dqn.load(cartpole).export(place / "missing")


def test_onnxruntime_reports_nothing_from_this_package_either(place):
    ran_at_home("from dqn.exports.onnx_files import library; library('onnxruntime').SessionOptions()", place)


@pytest.mark.parametrize("recipe", mostly_slow(RECIPES, ["tabular"]))
def test_every_recipe_in_its_own_world(place, recipe):
    """Means of noisy weights, fixed fractions, spectral norms, remembered states: what an evaluation plays with."""
    overrides = [f"algorithm={recipe}", *OWN.get(recipe, [])]
    if recipe == "cql":
        overrides.append(f"replay.path={trained(place, 'cartpole')}")
    run = trained(place, f"every-{recipe}", *overrides)
    about, _ = exported(run, place / f"every-{recipe}-out")
    assert all(one["relative_difference"] <= 1e-5 for one in about["parity"].values())
    assert about["run"]["algorithm"] == recipe
