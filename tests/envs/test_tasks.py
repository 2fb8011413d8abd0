"""The tasks of env=lm: splits that share nothing, and scores that are what they say."""

import random

import pytest
from language import tiny  # noqa: F401  (skips with the reason where transformers is missing)

from dqn.envs.prompts import Score, of_task
from dqn.envs.tasks import docstrings, one_sentence
from dqn.errors import UsageError

NEEDS = {"sentiment": "vaderSentiment", "one_sentence": "math", "reasoning": "reasoning_gym", "docstrings": "scipy"}
SMALL = {"docstrings": {"train": "hydra", "validation": "omegaconf", "test": "gymnasium"}}  # torch is long to read


@pytest.fixture(params=NEEDS)
def task(request, monkeypatch):
    pytest.importorskip(NEEDS[request.param], reason=f"{request.param} needs {NEEDS[request.param]} (extra lm)")
    if request.param == "docstrings":
        monkeypatch.setattr(docstrings, "PACKAGES", SMALL["docstrings"])
    return request.param


def test_no_prompt_is_in_two_splits(task):
    prompts = {split: {str(p.said) for p in of_task(task, split)} for split in ("train", "validation", "test")}
    assert all(prompts.values())
    assert not prompts["train"] & prompts["test"] and not prompts["train"] & prompts["validation"]
    assert not prompts["validation"] & prompts["test"]


def test_every_score_is_a_number_for_any_text(task):
    score, second = Score.of_task(task), Score.of_task(task, "second_score")
    for prompt in of_task(task, "test")[:3]:
        for text in ("", "\n", "I love this good day.", "12", "é ☃", "a" * 500):
            assert -1 <= score(prompt, text) <= 1
            second(prompt, text)


def test_an_unknown_task_is_a_sentence():
    with pytest.raises(UsageError, match="choose one of docstrings, one_sentence, reasoning, sentiment"):
        of_task("nothing", "train")


def subsequence(one, two):
    """The longest common subsequence by trying every one of them."""
    if not one or not two:
        return 0
    if one[0] == two[0]:
        return 1 + subsequence(one[1:], two[1:])
    return max(subsequence(one[1:], two), subsequence(one, two[1:]))


def test_rouge_is_that_of_the_recursion():
    rng = random.Random(0)
    for _ in range(50):
        one, two = ([rng.choice("abcd") for _ in range(rng.randint(1, 7))] for _ in range(2))
        common = subsequence(one, two)
        assert docstrings.longest_common(one, two) == common
        p, r = common / len(one), common / len(two)
        want = 2 * p * r / (p + r) if common else 0.0
        assert docstrings.score("", " ".join(one), " ".join(two)) == pytest.approx(want)


SENTENCES = {
    " was very good.": 1, "was very good": 0, "was good.": 0, "was good. It is so.": 0, "was it? so it is.": 0,
    "a b c d e f g h i j.": 1, "a b c d e f g h i j k.": 0, "": 0, "a b\nc d.": 0,
}  # fmt: skip


@pytest.mark.parametrize("text", SENTENCES)
def test_one_sentence_is_verified(text):
    assert one_sentence.score("", text) == SENTENCES[text]


def test_feelings_are_read_by_two_lexicons():
    for name in ("vaderSentiment", "afinn"):
        pytest.importorskip(name)
    from dqn.envs.tasks import sentiment

    assert sentiment.score("", "I love it") > 0.5 > -0.5 > sentiment.score("", "I hate it")
    assert sentiment.second_score("", "I love it") > 0 > sentiment.second_score("", "I hate it")


def test_answers_are_verified():
    pytest.importorskip("reasoning_gym")
    score, second = Score.of_task("reasoning"), Score.of_task("reasoning", "second_score")
    from dqn.envs.tasks.reasoning import _dataset

    for prompt in of_task("reasoning", "test")[:6]:
        item = prompt.more["item"]
        answer = _dataset(prompt.more["family"], item[0], item[1])[item[2]]["answer"]
        assert score(prompt, f" {answer}.\nand more") == second(prompt, answer) == 1
        assert score(prompt, "x y z") < 1 and second(prompt, "x") == 0
