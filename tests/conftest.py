"""One thread before torch is imported, registered test worlds, and the few helpers every test file shares."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

import contextlib
import io
import signal
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

sys.path.insert(0, str(Path(__file__).parent))
import pretend
import worlds  # noqa: F401  (registers the worlds)

from dqn.config import build
from dqn.config.cli import CONF
from dqn.execution.inductor import compiled
from dqn.networks.records import split
from dqn.tracking.logger import start_text_log

torch.set_num_threads(1)
for number in (signal.SIGINT, signal.SIGHUP):  # nohup and a shell's & make what they start ignore them
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
PRETENDED = not torch.cuda.is_available()  # the GPU of the tests marked gpu
EVERY = sorted(path.stem for path in (CONF / "algorithm").glob("*.yaml"))
LANGUAGE = [name for name in EVERY if name.startswith("lm_")]  # recipes for env=lm alone: tests/test_language.py
TAUGHT = ["distill"]  # needs the run that it imitates, and learns no values: tests/test_distill.py
RECIPES = [name for name in EVERY if name not in (*LANGUAGE, *TAUGHT)]
FEW = ["dqn", "drqn", "pqn", "rainbow", "tabular"]  # recipes that have little in common
QUICK = [
    "run.dir=unused",
    "execution=eager",  # as written: what engines change is proven where they are tested
    "tracking.evaluate_every=0",
    "tracking.checkpoint_every=0",
    "tracking.final_episodes=2",
]

SMALL = ["learning_starts=50", "train_every=2", "torso.hidden=[8]", "tuned.samples=4", "tuned.quantiles=8"]
SHORT = {  # 75 updates within 200 steps of the chain
    "tabular": [],
    "pqn": ["torso.hidden=[8]", "env.num_envs=4", "replay.length=4", "passes.minibatches=4"],
    "r2d2": [*SMALL, "replay.length=4", "replay.burn_in=2", "replay.stride=2", "replay.batch_size=4"],
    "drqn": [*SMALL, "replay.length=4", "replay.batch_size=4"],
    "der": [*SMALL, "torso=mlp"],
    "btr": [*SMALL, "torso=mlp", "env.num_envs=4", "replay.batch_size=16"],
}


def configure(*overrides: str):
    """The composed configuration for some overrides, with no evaluations or checkpoints on the way."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=[*QUICK, *overrides])


def world(name: str, *overrides: str) -> list[str]:
    """Overrides that choose a world registered in tests/worlds.py."""
    return ["env=gym", f"env.id={name}", "env.imports=[worlds]", *overrides]


def seen(envs, record):
    """The parts of what environments show, by name, as NumPy arrays."""
    return {name: part.numpy() for name, part in split(envs.spec.parts, torch.from_numpy(record)).items()}


@pytest.fixture
def wired(tmp_path):
    """wired(*overrides) → a wired run in its own directory; closed when the test ends."""
    runs = []

    def make(*overrides: str):
        directory = tmp_path / f"run{len(runs)}"
        directory.mkdir()
        runs.append(build.run(configure(*overrides), directory))
        return runs[-1]

    start_text_log(None)
    yield make
    for run in runs:
        run.close()


@pytest.fixture
def recorded_only(monkeypatch):
    """The recording is run as it is, operation by operation: all of an engine but the compiler."""
    monkeypatch.setattr(compiled, "compile_graph", lambda graph, inputs: lambda given: graph.forward(*given))


@pytest.fixture
def small(wired, tmp_path):
    """small(recipe, …) wires it on the chain with small numbers; recipes that learn from data get some."""

    def make(recipe, *overrides):
        data = []
        if recipe == "cql":
            played = wired("env=chain", "steps=200", "tuned.epsilon_end=1.0")
            played.trainer.run()
            data = [f"replay.path={played.trainer.directory}"]
        return wired(f"algorithm={recipe}", "env=chain", "steps=200", *SHORT.get(recipe, SMALL), *overrides, *data)

    return make


@pytest.fixture(autouse=True)
def gpu(request):
    """Where there is no GPU for the tests of one, one is pretended."""
    if request.node.get_closest_marker("gpu") is None or not PRETENDED:
        yield
    else:
        with pretend.gpu(request.getfixturevalue("monkeypatch")):
            yield


def mostly_slow(names, few):
    """Parameters of a test, all but a few of them for slow tests."""
    return [pytest.param(name, marks=[] if name in few else [pytest.mark.slow]) for name in names]


def some(names, few):
    """Parameters of a test of a GPU: where one is pretended, which is slow, all but a few of them are slow tests."""
    return mostly_slow(names, few if PRETENDED else names)


def here(verb, *arguments, at=Path(__file__).parent):
    """Exit code, output and errors of a verb in this process, which spares the seconds in which a new one begins."""
    handlers = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    with (
        contextlib.chdir(at), contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as errors,
        pytest.MonkeyPatch.context() as patch,
    ):  # fmt: skip
        patch.setattr(sys, "argv", ["dqn", *map(str, arguments)])
        try:
            verb.main()
            code = 0
        except SystemExit as end:
            code = end.code
    for number, handler in handlers:
        signal.signal(number, handler)
    return code, out.getvalue(), errors.getvalue()
