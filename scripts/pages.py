"""Writes the table of recipes in conf/README.md from conf/algorithm, and the map in dqn/README.md from the docstrings.

Run it after a recipe or a docstring has changed: .venv/bin/python scripts/pages.py"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from omegaconf import OmegaConf

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "dqn"


def recipe_table() -> str:
    """The table of recipes in Markdown, plain DQN first."""
    paths = sorted((ROOT / "conf" / "algorithm").glob("*.yaml"), key=lambda p: (p.stem != "dqn", p.stem))
    return "\n".join(["| `algorithm=` | paper | overrides |", "|---|---|---|", *map(_recipe, paths)])


def _recipe(path: Path) -> str:
    """One recipe: its paper (the first line of its comment) and its overrides of plain DQN."""
    text = path.read_text()
    title, _, paper = next(line[2:] for line in text.splitlines()[1:] if line.startswith("# ")).partition(". ")
    settings = OmegaConf.to_container(OmegaConf.create(text)) or {}
    assert isinstance(settings, dict)
    named = settings.pop("defaults", [])
    parts = [f"as `{d}`" for d in named if isinstance(d, str)]
    parts += [f"`{k.split('/')[-1]}={v}`" for d in named if isinstance(d, dict) for k, v in d.items()]
    numbers = [f"`{k}={v}`" for k, v in _flat(settings)]
    return f"| `{path.stem}` | {title}. {paper} | {', '.join(parts + numbers) or 'none'} |"


def _flat(settings: dict, prefix: str = "") -> list[tuple[str, object]]:
    items = []
    for key, value in settings.items():
        items += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return [(k, "null" if v is None else v) for k, v in items]


def code_map() -> str:
    """Every file of the package with the first sentence of its docstring, the verbs and the common ground first."""
    files = sorted(PACKAGE.rglob("*.py"), key=lambda p: (p.parent != PACKAGE, p.parent.as_posix(), p.name))
    rows, folder = ["| file | what it is |", "|---|---|"], PACKAGE
    for path in files:
        if path.name == "__init__.py":
            continue
        if path.parent != folder:
            folder = path.parent
            rows.append(f"| **`{folder.relative_to(PACKAGE)}/`** | **{_sentence(folder / '__init__.py')}** |")
        rows.append(f"| `{path.relative_to(PACKAGE)}` | {_sentence(path)} |")
    return "\n".join(rows)


def _sentence(path: Path) -> str:
    text = " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0].split())
    return re.split(r"(?<=[a-z0-9)*])\. ", text)[0].rstrip(".").replace("|", "\\|")


def write(page: Path, mark: str, text: str) -> None:
    """Put the text between a page's two marks."""
    new = re.sub(rf"<!-- {mark} -->.*<!-- /{mark} -->", lambda _: f"<!-- {mark} -->\n{text}\n<!-- /{mark} -->",
                 page.read_text(), flags=re.DOTALL)  # fmt: skip
    page.write_text(new)


if __name__ == "__main__":
    write(ROOT / "conf" / "README.md", "recipes", recipe_table())
    write(PACKAGE / "README.md", "map", code_map())
