"""The doors between the rooms: types ← ops ← rooms ← trainer ← config ← verbs."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "dqn"
FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = {"networks", "replay", "acting", "learning", "envs", "execution", "tracking"}
VERBS = {"train", "evaluate", "report", "generate", "export", "record", "pack", "tune", "doctor"}
LEVELS = [  # each imports from those above it alone, and rooms never import one another
    {"errors"},
    {"types", "resources", "processes", "seeding", "device", "state", "programs"},
    {"ops", "protocols", "causal_lm"},
    ROOMS,
    {"trainer"},
    {"config"},
    {"language", "reports", "exports"},
    {"agent"},
    {"run", "report"},
    {"sweep", "api"},
    {"train", "evaluate", "generate", "export", "record", "pack", "tune", "doctor"},
]
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}
READERS = {"config", "agent", "exports", "language", "reports", "api", "run", "sweep", *VERBS}  # of the configuration


def room(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_what_acts_without_the_package_imports_nothing_of_it():
    assert not [module for module in imports(PACKAGE / "exports/act.py") if module.startswith(("dqn", "torch"))]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_doors(path):
    here = room(path)
    if here == "__init__":
        return
    for module in imports(path):
        parts = module.split(".")
        there = parts[1] if parts[0] == "dqn" and len(parts) > 1 else ""
        if not there or (not (PACKAGE / there).is_dir() and not (PACKAGE / f"{there}.py").is_file()):
            continue  # another package, or a name of dqn/__init__.py
        same_room = here == there
        assert same_room or LEVEL[there] < LEVEL[here], f"{here} must not import {there}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_the_configuration_stops_at_the_door(path):
    names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
    if room(path) not in READERS:
        assert "cfg" not in names
        assert not any(module.startswith(("hydra", "omegaconf")) for module in imports(path))
    assert not {"utils", "helpers", "misc", "common", "base"} & {*path.relative_to(PACKAGE).with_suffix("").parts}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_function_is_longer_than_a_screen(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, f"{node.name} is {node.end_lineno - node.lineno} lines long"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_public_things_say_what_they_are(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_"):
            assert ast.get_docstring(node) or node.name in ("main", "crossed"), f"{path.name}: {node.name}"


def test_plain_dqn_is_the_house_as_it_stands():
    recipe = (PACKAGE.parent / "conf/algorithm/dqn.yaml").read_text()
    assert not [line for line in recipe.splitlines() if line.strip() and not line.startswith("#")]


def test_the_bellman_line_exists_once():
    found = [
        p for p in FILES if "discount * " in p.read_text() and "inverse" in p.read_text() and "atoms" in p.read_text()
    ]
    assert [p.name for p in found] == ["objective.py"]


def test_without_its_engines_the_program_is_whole(tmp_path):
    """The folder is deleted, the Q-table of the chain is trained and evaluated: slower, and with the same result."""
    shutil.copytree(PACKAGE, tmp_path / "dqn", ignore=shutil.ignore_patterns("execution", "__pycache__"))
    shutil.copytree(PACKAGE.parent / "conf", tmp_path / "conf")
    command = ["algorithm=tabular", "env=chain", "steps=500", "tracking.final_episodes=2"]
    parameters = set()
    for index, home in enumerate((tmp_path, PACKAGE.parent)):
        words = [*command, f"run.dir={tmp_path}/{index}", "execution=plain"]
        done = subprocess.run(
            [sys.executable, "-m", "dqn.train", *words], cwd=home, env={**os.environ, "PYTHONPATH": str(home)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        result = json.loads((tmp_path / str(index) / "result.json").read_text())
        assert result["evaluation"]["episodes"] == 2
        parameters.add(result["parameter_hash"])
    assert len(parameters) == 1
