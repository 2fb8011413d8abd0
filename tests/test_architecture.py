"""The doors between the rooms (DESIGN: types ← ops ← rooms ← trainer ← build ← verbs), and the line budget."""

import ast
import io
import tokenize
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "dqn"
FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = {"networks", "replay", "acting", "learning", "envs", "execution", "tracking"}
VERBS = {"train", "evaluate", "report"}
LEVEL = {
    "types": 0,
    "ops": 1,
    **dict.fromkeys(ROOMS, 2),
    "collector": 3,
    "tensor_collector": 3,
    "remote_collector": 3,
    "offline": 3,
    "trainer": 3,
    "cli": 3,
    "automatic": 3,
    "tuned": 4,
    "again": 4,
    "options": 4,
    "card": 4,
    "parts": 4,
    "collectors": 5,
    "build": 6,
    "agent": 6,
    **dict.fromkeys(VERBS, 7),
}
FAMILY = {  # parts that a reader of plain DQN need not open
    "distributions.py", "heads.py", "quantiles.py", "layers.py", "outputs.py", "torsos.py", "convs.py", "cores.py",
    "fitting.py", "records.py", "frames.py", "storage.py", "priorities.py", "prioritized.py", "dataset.py", "terms.py",
    "passes.py",
}  # fmt: skip
CORE = ["types.py", "ops", "networks", "replay", "acting", "learning", "collector.py", "trainer.py", "parts.py",
        "build.py", "train.py"]  # fmt: skip


def room(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_doors(path):
    here = room(path)
    if here == "__init__":
        return
    for module in imports(path):
        parts = module.split(".")
        if parts[0] != "dqn" or len(parts) < 2 or parts[1] not in LEVEL:
            continue
        there = parts[1]
        same_room = here == there
        assert same_room or LEVEL[there] < LEVEL[here], f"{here} must not import {there}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_the_configuration_stops_at_the_door(path):
    names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
    readers = {"again", "agent", "automatic", "tuned", "build", "collectors", "parts", "options", "card", "cli", *VERBS}
    if room(path) not in readers:
        assert "cfg" not in names
        assert not any(module.startswith(("hydra", "omegaconf")) for module in imports(path))
    assert not {"utils", "helpers", "misc", "common", "base"} & {*path.relative_to(PACKAGE).with_suffix("").parts}


def code(path):
    """Lines that are neither blank nor docstring nor comment."""
    text = path.read_text()
    rest = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    tokens = [t for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.type not in rest]
    lines = {line for t in tokens for line in range(t.start[0], t.end[0] + 1)}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
            lines -= {*range(node.body[0].lineno, node.body[0].end_lineno + 1)}
    return len(lines)


def test_the_core_can_be_read_in_an_hour():
    found = [f for part in CORE for f in ([PACKAGE / part] if part.endswith(".py") else (PACKAGE / part).glob("*.py"))]
    lines = {f: len(f.read_text().splitlines()) for f in FILES}
    core = [f for f in found if f.name not in FAMILY]
    assert len(found) - len(core) == len(FAMILY)
    print(f"core: {sum(lines[f] for f in core)} lines, with all of the family {sum(lines[f] for f in found)}")
    print(f"of code alone: {sum(map(code, core))} and {sum(map(code, found))}")
    assert sum(map(code, core)) <= 1500
    assert sum(lines[f] for f in core) <= 2200
    assert max(lines.values()) <= 240, max(lines, key=lines.__getitem__)


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
