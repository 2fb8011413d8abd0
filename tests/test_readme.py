"""README's commands run, as they stand, in an empty directory."""

import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from conftest import here

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
COMMANDS = [
    line.partition("  #")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
]
BRIEF = {"dqn.train": ["steps=300", "tracking.final_episodes=1"], "dqn.evaluate": ["episodes=2"]}


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


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("python -m dqn")])
def test_commands_run(empty, command):
    """Alone too, whichever worker takes it: the run that a command speaks of is made by the command that makes it."""
    for name in re.findall(r"(?<!\.)(?:run|resume|replay\.path)=(runs/\S+)", command):
        if not (empty / name).exists():
            run(empty, next(c for c in COMMANDS if f"run.dir={name}" in c))
    run(empty, command)


def test_parts_and_programs_of_ones_own(tmp_path):
    """The blocks that are files lie where they say, the command for them runs, and so does the program behind it."""
    blocks = re.findall(r"```(?:python|yaml)\n(.*?)```", README, re.DOTALL)
    files = {block.split()[1]: block for block in blocks if re.match(r"# \S+\.(py|yaml)\n", block)}
    assert {"own.py", "parts/backup/together.yaml"} <= {*files}
    for name, block in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(block)
    (command,) = (line for line in README.splitlines() if "--config-dir parts" in line)
    brief = ["steps=1500", "tracking.final_episodes=1", "run.dir=runs/mine", "execution=eager"]
    (program,) = (block for block in blocks if block.startswith("import dqn\n"))
    program = program.replace('agent.make(render_mode="human")', "agent.make()") + "\nprint(reward)\n"
    for words in ([*shlex.split(command)[1:], *brief], ["-c", program]):
        done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert done.stdout == "1.0\n"


def test_every_other_command_is_a_script_that_is_there():
    others = [shlex.split(c)[0] for c in COMMANDS if c and not c.startswith("python -m dqn")]
    assert {"scripts/train", "scripts/test", "scripts/bench", "tensorboard"} == set(others)
    assert all((ROOT / c).is_file() for c in others if c.startswith("scripts/"))


def test_every_file_of_the_tree_is_in_the_tree():
    tree = README.partition("## The tree")[2]
    for path in [*(ROOT / "dqn").glob("*.py"), *(p for p in (ROOT / "dqn").iterdir() if p.is_dir())]:
        if not path.name.startswith("__"):
            assert path.name in tree, path.name


def test_the_recipe_table_is_the_one_of_conf():
    sys.path.insert(0, str(ROOT / "scripts"))
    import recipes

    assert recipes.table() in README, "run scripts/recipes.py"
