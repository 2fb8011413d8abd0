"""What Gymnasium's environments answer: its form, and numbers of an info by name."""

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

STEP = "step must return five values (obs, reward, terminated, truncated, info)"
RESET = "reset must return two values (obs, info)"
TAKES = "reset must take what Gymnasium gives it: def reset(self, *, seed=None, options=None)"


class WrongAnswer(Exception):
    """An environment answered in another form than Gymnasium's; the message says what the form is."""


def reset_answer(answer: Any) -> tuple[Any, Mapping[str, Any]]:
    """The observation and the info of a reset. An observation alone, which could be taken apart, is no answer.

    Errors: WrongAnswer.
    """
    if isinstance(answer, (tuple, list)) and len(answer) == 2 and (answer[1] is None or isinstance(answer[1], Mapping)):
        return answer[0], answer[1] or {}
    raise WrongAnswer(f"{RESET}, the info a dict, and it returned {_words(answer)}")


def wrong_answer(error: BaseException) -> str:
    """What an environment should have answered, where `error` is that of whoever took its answer apart; else nothing.

    Environments made for the old API of Gym return four values from a step and an observation alone from a reset, and
    the first wrapper around them fails, with an error that speaks of values to unpack.
    """
    if isinstance(error, WrongAnswer):
        return str(error)
    trace, said = error.__traceback__, str(error)
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or not isinstance(trace.tb_frame.f_locals.get("self"), gymnasium.Wrapper):
        return ""
    if isinstance(error, TypeError) and "unexpected keyword argument" in said and "reset()" in said:
        return f"{TAKES} ({said})"
    asked = {"step": STEP, "reset": RESET}.get(trace.tb_frame.f_code.co_name, "")
    return f"{asked} ({said})" if asked and "unpack" in said else ""


def number(info: Mapping[str, Any], name: str) -> float:
    """A number of an info by its name, of a dict in it by a name with dots (episode.r); NaN where there is none."""
    value, _ = _found(info, name)
    if value is None:
        return float("nan")
    array = np.asarray(value)
    return float(array.item()) if array.size == 1 and array.dtype.kind in "biuf" else float("nan")


def numbers(info: Mapping[str, Any], name: str, num_envs: int) -> np.ndarray:
    """The same of each environment [E], from the info of a vector: an array, and beside it which of them gave one."""
    values, there = _found(info, name)
    if values is None or len(np.atleast_1d(np.asarray(values, object))) != num_envs:
        return np.full(num_envs, np.nan)
    given = np.ones(num_envs, bool) if there is None else np.asarray(there, bool)
    return np.array([number({name: value}, name) if yes else np.nan for value, yes in zip(values, given, strict=True)])


def _found(info: Mapping[str, Any], name: str) -> tuple[Any, Any]:
    """What an info holds under a name, and which environments of a vector gave it, where that is said."""
    value, there = info, None
    for key in [name] if name in info else name.split("."):
        if not isinstance(value, Mapping):
            return None, None
        value, there = value.get(key), value.get(f"_{key}")
    return value, there


def _words(answer: Any) -> str:
    if isinstance(answer, (tuple, list)):
        return f"{len(answer)} values"
    return f"an array of shape {answer.shape}" if isinstance(answer, np.ndarray) else f"a {type(answer).__name__}"
