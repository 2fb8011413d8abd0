"""Say something kind: openings of sentences, scored by a lexicon of feelings; a second lexicon is only reported.

VADER: Hutto & Gilbert (2014). AFINN: Nielsen (2011). The openings are neutral, and ours.
"""

from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import Any

OPENINGS = (
    "The {} today is", "My neighbour said that the {}", "We talked about the {} and", "When I saw the {}, I",
    "Everyone in the office thinks the {}", "She looked at the {} and said",
)  # fmt: skip
TOPICS = {
    "train": (
        "weather", "film", "meeting", "train", "soup", "garden", "letter", "teacher", "house", "song", "lesson",
        "game", "street", "picture", "journey", "answer",
    ),
    "validation": ("book", "river", "phone", "coffee"),
    "test": ("dinner", "museum", "bus", "story", "market", "painting", "hotel", "speech"),
}  # fmt: skip


def rows(split: str) -> Iterator[dict[str, Any]]:
    """Openings about topics that no other split has."""
    for topic, opening in product(TOPICS[split], OPENINGS):
        yield {"prompt": opening.format(topic)}


@cache
def _vader() -> Any:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer  # pyright: ignore[reportMissingImports]

    return SentimentIntensityAnalyzer()


@cache
def _afinn() -> Any:
    from afinn import Afinn  # pyright: ignore[reportMissingImports]

    return Afinn()


def score(prompt: str, text: str) -> float:
    """VADER's compound score of what was written, between −1 and 1."""
    return float(_vader().polarity_scores(text)["compound"])


def second_score(prompt: str, text: str) -> float:
    """AFINN's sum of what was written: a lexicon that is not learnt from."""
    return float(_afinn().score(text))
