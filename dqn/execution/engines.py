"""Engines: how a function is run. Two verbs, both the identity when eager.

`compile(fn)` takes a pure function of tensors; `capture(fn)` takes a whole step with its in-place effects.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

F = TypeVar("F", bound=Callable)


class Eager:
    """Run as written."""

    name = "eager"

    def compile(self, fn: F) -> F:
        return fn

    def capture(self, fn: F) -> F:
        return fn
