"""The wheel works in an empty directory as the checkout does; a bar on a terminal, lines elsewhere."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_trains_in_an_empty_directory(wheel, tmp_path):
    assert wheel.name.startswith("dqn_family-")
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    empty = tmp_path / "empty"
    empty.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    code = "import dqn, dqn.config.cli; print(dqn.__file__, dqn.config.cli.CONF)"
    where = subprocess.run(
        [sys.executable, "-c", code], cwd=empty, env=environment, capture_output=True, text=True, check=True
    )
    assert where.stdout.count(str(tmp_path / "installed")) == 2
    done = subprocess.run(
        [sys.executable, "-m", "dqn.train", "steps=2000", "tracking.final_episodes=2"],
        cwd=empty, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(list(empty.glob("runs/*/result.json"))) == 1
    assert [p.name for p in empty.iterdir()] == ["runs"]


def test_the_wheel_holds_the_configuration_and_nothing_of_the_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {"dqn/conf/config.yaml", "dqn/conf/algorithm/dqn.yaml", "dqn/train.py"} <= set(names)
    assert not [name for name in names if name.startswith(("tests", "scripts", "conf"))]
    scripts = zipfile.ZipFile(wheel).read(next(n for n in names if n.endswith("entry_points.txt"))).decode()
    assert {line.partition(" = ")[0] for line in scripts.splitlines() if " = " in line} == {
        f"dqn-{verb}"
        for verb in ("train", "evaluate", "report", "export", "record", "pack", "tune", "doctor", "generate")
    }


def test_a_bar_on_a_terminal_and_plain_lines_elsewhere(tmp_path):
    command = [sys.executable, "-m", "dqn.train", "steps=1500", "tracking.final_episodes=1"]
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    process = subprocess.Popen(
        [*command, f"run.dir={tmp_path}/a"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=theirs, text=True
    )
    os.close(theirs)
    bar = b""
    try:
        while chunk := os.read(ours, 4096):
            bar += chunk
    except OSError:  # Linux ends a pseudo-terminal with an error
        pass
    assert process.communicate()[0].count("steps, mean return") == 0
    assert process.returncode == 0
    assert "1.50k/1.50k" in bar.decode()
    plain = subprocess.run(
        [*command, f"run.dir={tmp_path}/b"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert 3 <= plain.stdout.count("steps, mean return") <= 10
    assert plain.stderr == ""
    last = plain.stdout.strip().splitlines()[-3:]
    assert last[0].startswith("Results are in /")
    assert "python -m dqn.evaluate run=" in last[1]
