"""The commands in scripts/ work with arguments, from a fresh copy of the repository."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PIP = """
import sys
from pathlib import Path

with Path("asked.txt").open("a") as file:
    print(*sys.argv[1:], file=file)
"""
COMMANDS = {  # the script with arguments, and what it installs
    "train": (["steps=300", "seed=3", "tracking.final_episodes=1"], "."),
    "test": (["tests/ops/test_schedules_transforms.py", "-q", "--numprocesses=0"], ".[dev]"),
    "bench": (["engines", "windows=1", "engines=eager", "calls=2", "learning_starts=100"], ".[plot]"),
    "reproduce": (["cartpole", "seeds=1", "jobs=1", "steps=1500", "tracking.final_episodes=1"], ".[plot,box2d]"),
    "get-smollm2": (["there"], ".[lm]"),  # a folder that has it already: nothing is downloaded
}
FRESH = {  # as a newcomer types them, everything installed from the package index
    "train": ["steps=2000", "seed=3"],
    "test": ["tests/ops", "-q"],
    "bench": ["engines", "windows=3"],
    "reproduce": ["worlds", "seeds=1", "jobs=1"],
}
WITHOUT_SETUP = {"docker-check"}  # builds an image, needs no .venv


def copy(to: Path) -> Path:
    """What a clone of this working tree would hold."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode:
        pytest.skip("this is no git checkout")
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)
    return to


def run(at: Path, script: str, *arguments: str, limit: int = 250) -> subprocess.CompletedProcess:
    names = [n for n in os.environ if n.startswith("PYTEST_")]  # a test run inside this one is a run of its own
    environment = {k: v for k, v in os.environ.items() if k not in names}
    return subprocess.run(
        [at / "scripts" / script, *arguments],
        cwd=at, env=environment, capture_output=True, text=True, check=False, timeout=limit,
    )  # fmt: skip


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """A copy whose .venv has this interpreter's packages, and a pip that only notes what it is asked for."""
    at = copy(tmp_path_factory.mktemp("fresh"))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", at / ".venv"], check=True)
    packages = next((at / ".venv/lib").glob("python*/site-packages"))
    (packages / "packages.pth").write_text(f"{at}\n{sysconfig.get_path('purelib')}\n")
    (packages / "pip").mkdir()
    (packages / "pip/__init__.py").touch()
    (packages / "pip/__main__.py").write_text(PIP)
    (at / "there").mkdir()
    for name in ("config.json", "model.safetensors"):
        (at / "there" / name).touch()
    return at


@pytest.mark.parametrize("script", COMMANDS)
def test_a_script_takes_arguments_and_installs_what_it_needs(fresh, script):
    arguments, wanted = COMMANDS[script]
    (fresh / "asked.txt").unlink(missing_ok=True)
    done = run(fresh, script, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    (asked,) = (fresh / "asked.txt").read_text().splitlines()
    assert asked.split()[asked.split().index("-e") + 1] == wanted
    run(fresh, script, *(["--collect-only", *arguments] if script == "test" else ["--help"]))
    assert len((fresh / "asked.txt").read_text().splitlines()) == 1  # a second call installs nothing


def test_every_script_is_tried():
    programs = {path.name for path in (ROOT / "scripts").iterdir() if os.access(path, os.X_OK) and path.is_file()}
    sourced = {name for name in programs if '/setup"' in (ROOT / "scripts" / name).read_text()}
    assert sourced == {*COMMANDS}
    assert programs == {*COMMANDS, "check"} | WITHOUT_SETUP


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_newcomers_commands_in_a_fresh_clone(tmp_path):
    at = copy(tmp_path)
    for script, arguments in FRESH.items():
        done = run(at, script, *arguments, limit=5400)
        assert done.returncode == 0, done.stdout + done.stderr
        print(f"scripts/{script} {' '.join(arguments)}\n{done.stdout[-600:]}")
