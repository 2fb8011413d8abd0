"""The commands of the pages run, as they stand, in an empty directory; what the pages name is there."""

import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from conftest import here

ROOT = Path(__file__).parent.parent
PAGES = {
    name: (ROOT / name).read_text()
    for name in (
        "README.md",
        "conf/README.md",
        "dqn/README.md",
        "scripts/README.md",
        "tests/README.md",
        "CONTRIBUTING.md",
    )
}
TEXT = "\n".join(PAGES.values())
COMMANDS = [
    line.partition("  #")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
    for line in block.splitlines()
]
BRIEF = {
    "dqn.train": ["steps=300", "tracking.final_episodes=1"],
    "dqn.evaluate": ["episodes=2"],
    "dqn.export": ["episodes=2", "drop=1"],
    "dqn.record": ["steps=20"],
}


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    return tmp_path_factory.mktemp("empty")


def run(empty, command):
    words = shlex.split(command)
    verb = import_module(words[2])
    brief = [] if "--help" in words or "resume=" in command else BRIEF.get(words[2], [])
    given = {word.partition("=")[0] for word in words}
    if "run.dir=runs/mine" in words or "-m" in words[3:]:
        brief = ["tracking.final_episodes=1"]
    if "steps" in given and "resume" not in given and "run.dir" not in given:
        words = [f"steps={300}" if w.startswith("steps=") else w for w in words]
        brief = ["tracking.final_episodes=1"]
    code, _, errors = here(verb, *words[3:], *brief, at=empty)
    assert code == 0, errors


def needed(command):
    """The runs that a command speaks of."""
    before = r"(?:(?<!\.)(?:run|resume|replay\.path|init_from|teacher|repeat)=|dqn\.report )"
    return re.findall(before + r"(runs/\S+)", command)


@pytest.mark.parametrize("command", [*dict.fromkeys(c for c in COMMANDS if c.startswith("python -m dqn"))])
def test_commands_run(empty, command):
    """Alone too, whichever worker takes it: the run that a command speaks of is made by the command that makes it."""
    runs = {name: next(c for c in COMMANDS if f"run.dir={name}" in c) for name in needed(command)}
    for name, maker in runs.items():
        if not (empty / name).exists():
            test_commands_run(empty, maker)
    if not ("run.dir=" in command and (empty / command.partition("run.dir=")[2].split()[0]).exists()):
        run(empty, command)


def test_parts_and_programs_of_ones_own(tmp_path):
    """The blocks that are files lie where they say, the command for them runs, and so does the program after it."""
    blocks = re.findall(r"```(?:python|yaml)\n(.*?)```", TEXT, re.DOTALL)
    files = {block.split()[1]: block for block in blocks if re.match(r"# \S+\.(py|yaml)\n", block)}
    assert {"own.py", "parts/backup/together.yaml"} <= {*files}
    for name, block in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(block)
    (command,) = (line for line in TEXT.splitlines() if "--config-dir parts" in line)
    brief = ["steps=1500", "tracking.final_episodes=1", "run.dir=runs/mine", "execution=eager"]
    (program,) = (block for block in blocks if block.startswith("import dqn\n\nagent = dqn.load"))
    program = program.replace('agent.make(render_mode="human")', "agent.make()") + "\nprint(reward)\n"
    program = program.replace('dqn.load("runs/mine")', 'dqn.load("runs/mine", trust=["own"])')
    for words in ([*shlex.split(command)[1:], *brief], ["-c", program]):
        done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert done.stdout == "1.0\n"


def test_every_other_command_is_a_script_that_is_there():
    others = [shlex.split(c)[0] for c in COMMANDS if c and not c.startswith("python -m dqn")]
    assert {"scripts/train", "scripts/test", "scripts/bench", "tensorboard"} <= set(others)
    assert all((ROOT / c).is_file() for c in others if c.startswith("scripts/"))


def test_the_first_page_is_short():
    assert len(PAGES["README.md"].encode()) <= 8_000


def test_links_between_the_pages_lead_somewhere():
    for name, page in PAGES.items():
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page):
            assert ((ROOT / name).parent / target).exists(), f"{name} links to {target}"


def test_every_file_of_the_package_is_on_its_map():
    """With the first sentence of its docstring, so that the map says what the file says."""
    sys.path.insert(0, str(ROOT / "scripts"))
    import pages

    assert pages.code_map() in PAGES["dqn/README.md"], "run scripts/pages.py"


def test_every_test_that_is_named_is_there():
    tests = {path: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    page = PAGES["tests/README.md"]
    for file in {*re.findall(r"`((?:\w+/)?test_\w+\.py)`", page)}:
        assert (ROOT / "tests" / file).is_file(), file
    for name in {*re.findall(r"`(test_\w+)`", page)}:
        assert any(f"def {name}(" in text for text in tests.values()), name


def test_the_recipe_table_is_the_one_of_conf():
    sys.path.insert(0, str(ROOT / "scripts"))
    import pages

    assert pages.recipe_table() in PAGES["conf/README.md"], "run scripts/pages.py"
