"""Writes README's table of recipes from conf/algorithm: .venv/bin/python scripts/recipes.py"""

from __future__ import annotations

import re
from pathlib import Path

from omegaconf import OmegaConf

ROOT = Path(__file__).resolve().parent.parent


def row(path: Path) -> str:
    """One recipe: its paper (the first line of its comment) and what it changes of the house."""
    text = path.read_text()
    title, _, paper = next(line[2:] for line in text.splitlines()[1:] if line.startswith("# ")).partition(". ")
    settings = OmegaConf.to_container(OmegaConf.create(text)) or {}
    assert isinstance(settings, dict)
    parts = [f"`{k.split('/')[-1]}={v}`" for d in settings.pop("defaults", []) for k, v in d.items()]
    numbers = [f"`{k}={v}`" for k, v in flat(settings)]
    return f"| `{path.stem}` | {title}. {paper} | {', '.join(parts + numbers) or 'nothing'} |"


def flat(settings: dict, prefix: str = "") -> list[tuple[str, object]]:
    items = []
    for key, value in settings.items():
        items += flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return [(k, "null" if v is None else v) for k, v in items]


def table() -> str:
    """The table in Markdown, plain DQN first."""
    paths = sorted((ROOT / "conf" / "algorithm").glob("*.yaml"), key=lambda p: (p.stem != "dqn", p.stem))
    return "\n".join(["| `algorithm=` | paper | changes of the house |", "|---|---|---|", *map(row, paths)])


if __name__ == "__main__":
    readme = ROOT / "README.md"
    fresh = re.sub(
        r"<!-- recipes -->.*<!-- /recipes -->",
        lambda _: f"<!-- recipes -->\n{table()}\n<!-- /recipes -->",
        readme.read_text(),
        flags=re.DOTALL,
    )
    readme.write_text(fresh)
