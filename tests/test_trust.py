"""Opening a stranger's run executes nothing: what lies in its directory is data."""

import json
import pickle
import shutil
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import yaml
from conftest import configure, here
from omegaconf import OmegaConf

import dqn
from dqn import evaluate, report, train
from dqn.config import build
from dqn.config.cli import CONF, run_config
from dqn.config.resume import stored_text
from dqn.config.trust import check_parts
from dqn.errors import UsageError
from dqn.tracking.logger import start_text_log

HERE = Path(__file__).parent
ECHO = "import os; os.system('touch {marker}')"


class Pickled:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        import os

        return os.system, (f"touch {self.marker}",)


def shell(marker):
    return {"_target_": "os.system", "_args_": [f"touch {marker}"]}


def target(name, **arguments):
    """Puts a call in the place of a part."""
    return lambda cfg, run, marker: cfg.update(
        torso={"_target_": name, **{k: v(run, marker) if callable(v) else v for k, v in arguments.items()}}
    )


def marker_argument(run, marker):
    return [str(marker)]


def beside(run, marker):
    """A module that lies beside the run and in the current directory."""
    (run / "evil.py").write_text(f"{ECHO.format(marker=marker)}\nclass Env: pass\n")
    return "evil"


def set_(name, value):
    def change(cfg, run, marker):
        node, *path = cfg, *name.split(".")
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = value(run, marker) if callable(value) else value

    return change


def stored_pickle(run, marker):
    path = run / "weights.pt"
    path.write_bytes(pickle.dumps(Pickled(marker)))
    return [str(path)]


def stored_array(run, marker):
    path = run / "data.npy"
    np.save(path, np.array([Pickled(marker)], dtype=object), allow_pickle=True)
    return [str(path)]


PAYLOADS = {  # what is done to a run's directory, and the word that the refusal must name
    "shell": (set_("torso", lambda run, m: shell(m)), "os.system"),
    "open": (target("builtins.open", _args_=lambda r, m: [str(m), "w"]), "builtins.open"),
    "exec": (target("builtins.exec", _args_=lambda r, m: [ECHO.format(marker=m)]), "builtins.exec"),
    "eval": (target("builtins.eval", _args_=lambda r, m: [f"open({str(m)!r}, 'w')"]), "builtins.eval"),
    "path": (target("pathlib.Path.touch", _args_=marker_argument), "pathlib.Path.touch"),
    "process": (target("subprocess.Popen", _args_=lambda r, m: [["touch", str(m)]]), "subprocess.Popen"),
    "torch.load": (target("torch.load", _args_=stored_pickle, weights_only=False), "torch.load"),
    "numpy.load": (target("numpy.load", _args_=stored_array, allow_pickle=True), "numpy.load"),
    "register": (target("gymnasium.register", id="Evil-v0", entry_point="os:system"), "gymnasium.register"),
    "make": (target("gymnasium.make", id=lambda r, m: f"{beside(r, m)}:X-v0"), "gymnasium.make"),
    "call": (target("hydra.utils.call", _args_=lambda r, m: [shell(m)]), "hydra.utils.call"),
    "get_method": (target("hydra.utils.get_method", path="os.system"), "hydra.utils.get_method"),
    "through a part's module": (target("dqn.networks.torsos.torch.load", _args_=stored_pickle, weights_only=False),
                                "dqn.networks.torsos.torch.load"),
    "through torch.optim": (target("torch.optim.optimizer.torch.hub.os.system",
                                   _args_=lambda r, m: [f"touch {m}"]), "torch.optim.optimizer"),
    "through gymnasium.wrappers": (target("gymnasium.wrappers.rendering.os.system", _args_=lambda r, m: [f"touch {m}"]),
                                   "gymnasium.wrappers.rendering.os"),
    "own verb": (target("dqn.tracking.checkpoint.write_text", _args_=lambda r, m: ["${oc.decode:x}", "x"]),
                 "oc.decode"),
    "own function": (target("dqn.tracking.logger.start_text_log", path=lambda r, m: str(m)),
                     "dqn.tracking.logger.start_text_log"),
    "own import": (target("dqn.envs.wrappers.make_one", index=0, id=lambda r, m: f"{beside(r, m)}:X", imports=["evil"],
                          kwargs={}, limit=None, cap=None, wrappers={}), "dqn.envs.wrappers.make_one"),
    "own file": (target("dqn.replay.ring.Ring", file=lambda r, m: str(m)), "dqn.replay.ring.Ring"),
    "private": (target("dqn.networks.torsos.__builtins__.open", _args_=lambda r, m: [str(m), "w"]), "__builtins__"),
    "nested": (set_("torso.layer", lambda r, m: shell(m)), "os.system"),
    "in a list": (set_("exploration._args_", lambda r, m: [[shell(m)]]), "os.system"),
    "term": (set_("terms.evil", lambda r, m: shell(m)), "os.system"),
    "engine": (set_("execution.engine", lambda r, m: shell(m)), "os.system"),
    "wrapper": (set_("env.wrappers.evil", lambda r, m: shell(m)), "os.system"),
    "writer": (set_("env.wrappers.video", lambda r, m: {"_target_": "gymnasium.wrappers.RecordVideo",
                                                        "video_folder": str(m)}), "RecordVideo"),
    "by interpolation": (lambda cfg, r, m: (set_("replay.path", "os.system")(cfg, r, m),
                                            set_("torso", {"_target_": "${replay.path}",
                                                           "_args_": [f"touch {m}"]})(cfg, r, m)), "os.system"),
    "resolver": (set_("seed", "${oc.env:HOME}"), "oc.env"),
    "resolver by name": (set_("seed", "${${device}:HOME}"), "${device"),
    "no text": (set_("torso", {"_target_": ["os.system"]}), "os.system"),
    "callbacks": (set_("hydra", lambda r, m: {"callbacks": {"evil": shell(m)}}), "hydra"),
    "logging": (set_("hydra", lambda r, m: {"job_logging": {"version": 1, "handlers": {
        "evil": {"class": "logging.FileHandler", "filename": str(m)}}, "root": {"handlers": ["evil"]}}}), "hydra"),
    "search path": (set_("hydra", {"searchpath": ["file://."]}), "hydra"),
    "defaults": (set_("defaults", ["evil", "_self_"]), "defaults"),
    "imports": (set_("env.imports", lambda r, m: [beside(r, m)]), "evil"),
    "import by a string": (set_("env.imports", beside), "evil"),
    "id": (set_("env.id", lambda r, m: f"{beside(r, m)}:X-v0"), "evil"),
    "old gym": (set_("env.id", "GymV26Environment-v0"), "GymV26Environment-v0"),
}  # fmt: skip


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """A finished run and its configuration as plain values."""
    directory = tmp_path_factory.mktemp("played")
    start_text_log(None)
    run = build.run(configure("steps=60", "learning_starts=20", "torso.hidden=[8]"), directory)
    run.trainer.run()
    run.close()
    return directory, yaml.safe_load(stored_text(configure("steps=60", "learning_starts=20", "torso.hidden=[8]")))


@pytest.fixture
def stranger(played, tmp_path):
    """stranger(change) → a copy of the run with a changed configuration, and a file that no payload may make."""
    directory, cfg = played

    def make(change):
        run, marker = tmp_path / "run", tmp_path / "executed"
        shutil.copytree(directory, run)
        changed = yaml.safe_load(yaml.safe_dump(cfg))
        change(changed, run, marker)
        (run / "config.yaml").write_text(yaml.safe_dump(changed))
        return run, marker

    return make


def opened(run):
    """(how, exit code, what was said) of every way to open a run; the current directory is the run's."""
    for name, verb, option in (("evaluate", evaluate, "run="), ("resume", train, "resume=")):
        more = ["episodes=1"] if verb is evaluate else ["steps=80", "tracking.final_episodes=1"]
        code, _, errors = here(verb, f"{option}{run}", *more, at=run)
        yield name, code, errors
    try:
        dqn.load(str(run))
        yield "load", 0, ""
    except UsageError as error:
        yield "load", 2, str(error)


@pytest.mark.parametrize("name", PAYLOADS)
def test_a_payload_is_named_and_not_executed(stranger, name):
    change, word = PAYLOADS[name]
    run, marker = stranger(change)
    for how, code, said in opened(run):
        assert not marker.exists(), how
        assert code == 2, (how, said)
        assert word in said, (how, said)
        assert len(said.strip().splitlines()) == 1, (how, said)
    here(report, run)
    assert not marker.exists()
    assert "evil" not in sys.modules


YAML = {
    "tag": "torso: !!python/object/apply:os.system ['touch executed']",
    "new": "torso: !!python/object/new:os.system ['touch executed']",
    "name": "torso: {_target_: !!python/name:os.system ''}",
    "aliases": "a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]",
    "depth": "a: " + "[" * 3000 + "]" * 3000,
}


@pytest.mark.parametrize("name", YAML)
def test_yaml_that_is_more_than_values_is_refused(stranger, name):
    run, _ = stranger(lambda *_: None)
    (run / "config.yaml").write_text(YAML[name])
    for how, code, said in opened(run):
        assert code == 2, how
        assert "config.yaml" in said and len(said.strip().splitlines()) == 1, (how, said)
    assert not (run / "executed").exists()


def test_what_a_run_of_this_package_wrote_opens(stranger):
    run, _ = stranger(lambda *_: None)
    assert [(how, code) for how, code, _ in opened(run)] == [("evaluate", 0), ("resume", 0), ("load", 0)]


def test_every_part_of_conf_may_be_stored():
    for path in CONF.rglob("*.yaml"):
        cfg = OmegaConf.load(path)
        if "hydra" not in cfg:
            found = [line.split("_target_:")[1].split("#")[0].strip() for line in path.read_text().splitlines()
                     if line.strip().startswith("_target_:")]  # fmt: skip
            named = {f"p{i}": {"_target_": name} for i, name in enumerate(found) if name != "???"}
            check_parts(OmegaConf.create(named), path)


def test_a_run_with_parts_and_an_environment_of_ones_own_opens_when_it_is_trusted(tmp_path):
    own = tmp_path / "mine_only.py"
    own.write_text(
        "import gymnasium\nfrom gymnasium.envs.classic_control import CartPoleEnv\n"
        "from dqn.networks.torsos import MLP\n\n\nclass Torso(MLP):\n    pass\n\n\n"
        "gymnasium.register('MineOnly-v0', CartPoleEnv, max_episode_steps=20)\n"
    )
    given = ["env=gym", "env.id=mine_only:MineOnly-v0", "torso._target_=mine_only.Torso", "tracking.final_episodes=1"]
    try:
        code, _, errors = here(train, *given, "steps=100", "learning_starts=50", "run.dir=own", at=tmp_path)
        assert code == 0, errors
        code, _, errors = here(evaluate, "run=own", "episodes=1", at=tmp_path)
        assert code == 2 and "add trust=[mine_only]" in errors
        for verb, words in ((evaluate, ["run=own", "episodes=1"]), (train, ["resume=own", "steps=120"])):
            code, _, errors = here(verb, *words, "trust=[mine_only]", at=tmp_path)
            assert code == 0, errors
        assert dqn.load(str(tmp_path / "own"), trust=["mine_only"]).act(np.zeros(4, np.float32)) in (0, 1)
        assert "trust" not in run_config(tmp_path / "own")
    finally:
        gymnasium.registry.pop("MineOnly-v0", None)
        sys.modules.pop("mine_only", None)


def test_trust_without_a_run_is_a_sentence():
    code, _, errors = here(train, "trust=[os]")
    assert code == 2 and "trust= goes with resume=RUN" in errors


def test_the_results_of_a_stranger_are_data_too(stranger, tmp_path):
    run, _ = stranger(lambda *_: None)
    for text in ("{", "[]", "null", '{"evaluation": 3}', json.dumps({"evaluation": {"mean": "x", "std": []}})):
        (run / "result.json").write_text(text)
        code, _, errors = here(report, run)
        assert code == 1 and "Traceback" not in errors and "result.json" in errors, text
