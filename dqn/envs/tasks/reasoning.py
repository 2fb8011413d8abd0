"""Answer a question whose answer can be verified: three families of reasoning-gym, asked as a user of a chat.

The verifiers are the package's own. Splits are different seeds. The second score is whether the answer is exact.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

FAMILIES = {"chain_sum": {"max_terms": 2, "max_digits": 1, "min_digits": 1}, "spell_backward": {"max_word_len": 4},
            "gcd": {"max_value": 20}}  # fmt: skip
SIZES = {"train": (300, 1), "validation": (10, 2), "test": (30, 3)}  # questions of each family, and their seed


@cache
def _dataset(family: str, size: int, seed: int) -> Any:
    import reasoning_gym  # pyright: ignore[reportMissingImports]

    return reasoning_gym.create_dataset(family, size=size, seed=seed, **FAMILIES[family])


def rows(split: str) -> Iterator[dict[str, Any]]:
    """Questions of all families in turn, with what is needed to verify an answer."""
    size, seed = SIZES[split]
    for index in range(size):
        for family in FAMILIES:
            asked = f"{_dataset(family, size, seed)[index]['question']} Answer with the result alone."
            yield {"prompt": [{"role": "user", "content": asked}], "family": family, "item": [size, seed, index]}


def score(prompt: str, text: str, family: str, item: list[int]) -> float:
    """What the family's verifier gives for the first line of the text, between 0 and 1."""
    dataset = _dataset(family, item[0], item[1])
    return float(dataset.score_answer(answer=_answer(text), entry=dataset[item[2]]))


def second_score(prompt: str, text: str, family: str, item: list[int]) -> float:
    """1 where the answer is exact, else 0."""
    return float(_answer(text) == _dataset(family, item[0], item[1])[item[2]]["answer"])


def _answer(text: str) -> str:
    return text.strip().split("\n")[0].strip().rstrip(".")
