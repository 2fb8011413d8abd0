"""Prompts for a language model, from a file or from a task of this package, and the functions that score texts."""

import importlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from dqn.envs.wrappers import EnvironmentFailure
from dqn.errors import UsageError

TASKS = "dqn.envs.tasks"  # modules with `rows(split)` and `score(prompt, text, …)`


@dataclass(frozen=True)
class Prompt:
    """What a model is to go on from: text, or the messages of a conversation; `more` is what its line says besides."""

    said: Any
    where: str
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """As text; of a conversation what was said last."""
        return self.said if isinstance(self.said, str) else str(self.said[-1].get("content", ""))


def read(path: str) -> list[Prompt]:
    """Prompts of a file: a line of text each, or, in a .jsonl file, an object with `prompt` or `messages`.

    Errors: UsageError, which names the file and the number of the line.
    """
    if path.endswith(".jsonl"):
        found = [of_row(row, where) for row, where in objects(path)]
    else:
        found = [Prompt(line, where) for line, where in _lines(path, "env.prompts")]
    if not found:
        raise UsageError(f"env.prompts={path} holds no prompts: put one on each line.")
    return found


def objects(path: str, option: str = "env.prompts") -> Iterator[tuple[dict[str, Any], str]]:
    """The objects of a file of JSON lines, each with its place in words. Errors: UsageError."""
    for line, where in _lines(path, option):
        yield _object(line, where), where


def _lines(path: str, option: str) -> Iterator[tuple[str, str]]:
    """The lines of a file that are not empty, with their places."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{option}={path} cannot be read ({error}): name a file of text.") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield line, f"{path}, line {number}"


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UsageError(
            f"{where} is no JSON ({error.msg} at column {error.colno}): write one object a line."
        ) from error
    if not isinstance(row, dict):
        raise UsageError(f"{where} is no JSON object: write one object a line, with `prompt` or `messages`.")
    return row


def of_row(row: Mapping[str, Any], where: str) -> Prompt:
    """The prompt of one object. Errors: UsageError where it has none."""
    more = {key: value for key, value in row.items() if key not in ("prompt", "messages")}
    said = row.get("prompt", row.get("messages"))
    if isinstance(said, str) and said:
        return Prompt(said, where, more)
    if isinstance(said, list) and said and all(isinstance(m, dict) and {"role", "content"} <= {*m} for m in said):
        asked = [{"role": m["role"], "content": m["content"]} for m in said]
        while len(asked) > 1 and asked[-1]["role"] == "assistant":  # what the model is to say itself
            asked.pop()
        return Prompt(asked, where, more)
    raise UsageError(
        f"{where} has no prompt: give `prompt` as text, or `messages` as a list of objects with `role` and `content`."
    )


def of_task(name: str, split: str) -> list[Prompt]:
    """The prompts of a task of this package, of its split `train`, `validation` or `test`."""
    return [of_row(row, f"env.task={name}, row {i}") for i, row in enumerate(_task(name).rows(split))]


def _task(name: str) -> Any:
    folder = Path(__file__).parent / "tasks"
    known = sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))
    if name not in known:
        raise UsageError(f"env.task={name} is not known: choose one of {', '.join(known)}.")
    try:
        return importlib.import_module(f"{TASKS}.{name}")
    except ImportError as error:
        raise UsageError(
            f'env.task={name} needs a package ({error}): run pip install "dqn-family[lm,reasoning]".'
        ) from error


class Score:
    """score(prompt, text) → a number for a text that a model wrote, by a function named `module:function`.

    The function is given the prompt and the text, and by name what it asks for of the prompt's line: `def score(prompt,
    text, reference)`. Errors: UsageError where there is no such function; EnvironmentFailure for what is no number.
    """

    def __init__(self, option: str, name: str):
        self.name = name
        module, sign, attribute = name.partition(":")
        try:
            self.function: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise UsageError(f"{option}={name} cannot be found ({error}): write module:function.") from error
        if not sign or not callable(self.function):
            raise UsageError(f"{option}={name} is no function: write module:function.")
        self.asks = [*inspect.signature(self.function).parameters][2:]

    @classmethod
    def of_task(cls, name: str, attribute: str = "score") -> "Score | None":
        """The score of a task of this package, or its second one where it has one."""
        return cls("env.task", f"{TASKS}.{name}:{attribute}") if hasattr(_task(name), attribute) else None

    def __call__(self, prompt: Prompt, text: str) -> float:
        missing = [name for name in self.asks if name not in prompt.more]
        if missing:
            raise UsageError(f"{prompt.where} has no `{missing[0]}`, which {self.name} asks for: add it to the line.")
        try:
            value = float(self.function(prompt.text, text, **{name: prompt.more[name] for name in self.asks}))
        except (TypeError, ValueError) as error:
            raise EnvironmentFailure(f"{self.name} gave no number for a text ({error})") from error
        if not isfinite(value):
            raise EnvironmentFailure(f"{self.name} gave {value} for a text of {prompt.where}")
        return value


def encoded(lm: Any, prompts: Sequence[Prompt], room: int) -> list[list[int]]:
    """The tokens of each prompt. Errors: UsageError where one, with `room` tokens after it, is longer than the model's
    context, or has no token."""
    found = []
    for prompt in prompts:
        tokens = lm.encode(prompt.said)
        if not tokens:
            raise UsageError(f"{prompt.where} has no tokens: write a prompt.")
        if len(tokens) + room > lm.context:
            raise UsageError(
                f"{prompt.where} has {len(tokens)} tokens, and with env.max_tokens={room} that is more than the "
                f"model's context of {lm.context}: shorten the prompt, or lower env.max_tokens."
            )
        found.append(tokens)
    return found
