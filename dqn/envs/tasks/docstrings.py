"""Say in one line what a paragraph says: docstrings of installed packages, whose first lines are the references.

Split by package, so that no author's style is in two splits: torch trains, numpy validates, scipy tests. The score is
ROUGE-L (Lin, 2004), the second score the share of the reference's words that were said.
"""

import ast
import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

PACKAGES = {"train": "torch", "validation": "numpy", "test": "scipy"}
MOST = {"train": 1000, "validation": 100, "test": 100}
WORDS = (12, 80)  # of a paragraph: fewer say nothing, more take long to read
REFERENCE = (4, 20)  # of a first line


def rows(split: str) -> Iterator[dict[str, Any]]:
    """Paragraphs with their first lines, `reference`, no paragraph twice."""
    yield from _rows(PACKAGES[split], MOST[split])


@cache
def _rows(package: str, most: int) -> tuple[dict[str, Any], ...]:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return ()
    found: dict[str, str] = {}
    for path in sorted(Path(spec.origin).parent.rglob("*.py")):
        for paragraph, reference in pairs(path):
            found.setdefault(paragraph, reference)
        if len(found) >= most:
            break
    return tuple(
        {"prompt": f"Text: {paragraph}\nSummary of the text in one sentence:", "reference": reference}
        for paragraph, reference in [*found.items()][:most]
    )


def pairs(path: Path) -> Iterator[tuple[str, str]]:
    """(second paragraph, first line) of every docstring of a file whose first line is a sentence."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError, ValueError):
        return
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            continue
        blocks = (ast.get_docstring(node) or "").split("\n\n")
        if len(blocks) < 2 or "\n" in blocks[0].strip():
            continue
        first, second = blocks[0].strip(), " ".join(blocks[1].split())
        plain = all(sign not in second for sign in ("---", ">>>", "::", "Args:", "Returns:", "math:"))
        sizes = len(first.split()), len(second.split())
        if plain and REFERENCE[0] <= sizes[0] <= REFERENCE[1] and WORDS[0] <= sizes[1] <= WORDS[1]:
            yield second, first


def words(text: str) -> list[str]:
    """The words of a text, small and without signs."""
    return "".join(c.lower() if c.isalnum() else " " for c in text).split()


def score(prompt: str, text: str, reference: str) -> float:
    """ROUGE-L: F1 of the longest common subsequence of words, 2 P R / (P + R)."""
    said, wanted = words(text.strip().split("\n")[0]), words(reference)
    common = longest_common(said, wanted)
    return 2 * common / (len(said) + len(wanted)) if said and wanted else 0.0


def longest_common(one: list[str], two: list[str]) -> int:
    """The length of the longest common subsequence, by dynamic programming over rows."""
    row = [0] * (len(two) + 1)
    for word in one:
        before = row
        row = [0]
        for j, other in enumerate(two):
            row.append(before[j] + 1 if word == other else max(row[j], before[j + 1]))
    return row[-1]


def second_score(prompt: str, text: str, reference: str) -> float:
    """The share of the reference's words that were said."""
    wanted = {*words(reference)}
    return len(wanted & {*words(text.strip().split(chr(10))[0])}) / max(1, len(wanted))
