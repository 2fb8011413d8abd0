"""One thread before torch is imported, registered test worlds, and the few helpers every test file shares."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

sys.path.insert(0, str(Path(__file__).parent))
import worlds  # noqa: F401  (registers the worlds)

from dqn import build
from dqn.cli import CONF
from dqn.tracking.logger import start_text_log

torch.set_num_threads(1)
QUICK = [
    "run.dir=unused",
    "tracking.evaluate_every=0",
    "tracking.checkpoint_every=0",
    "tracking.final_episodes=2",
]


def configure(*overrides: str):
    """The composed configuration for some overrides, with no evaluations or checkpoints on the way."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=[*QUICK, *overrides])


def world(name: str, *overrides: str) -> list[str]:
    """Overrides that choose a world registered in tests/worlds.py."""
    return ["env=gym", f"env.id={name}", "env.imports=[worlds]", *overrides]


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


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        skip = pytest.mark.skip(reason="needs a CUDA device")
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(skip)
