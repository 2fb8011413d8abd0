"""Write one whole sentence and no more: an exact verifier of form and length. The openings are those of sentiment."""

from collections.abc import Iterator
from typing import Any

from dqn.envs.tasks.sentiment import rows as openings

WORDS = (3, 10)  # of the sentence after its opening


def rows(split: str) -> Iterator[dict[str, Any]]:
    """The same openings, in the same splits."""
    return openings(split)


def score(prompt: str, text: str) -> float:
    """1 where the text is one sentence of 3 to 10 words that ends with a full stop, else 0."""
    said = text.strip()
    one = said.endswith(".") and not any(sign in said[:-1] for sign in ".!?\n")
    return float(one and WORDS[0] <= len(said.split()) <= WORDS[1])


def second_score(prompt: str, text: str) -> float:
    """The number of words."""
    return float(len(text.split()))
