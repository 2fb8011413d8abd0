"""What a command of `scripts/bench` found, and how its numbers are written."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import Any


@dataclass
class Report:
    """What a command found: a table, sentences below it, and every window by row, with their unit, for the picture."""

    head: list[str]
    rows: list[list[str]]
    notes: list[str]
    bars: dict[str, list[float]]
    axis: str
    floor: float | None = None
    more: dict[str, Any] = field(default_factory=dict)


def number(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def spread(values: list[float]) -> list[str]:
    """Median and range, two cells."""
    return [number(median(values)), f"{number(min(values))} to {number(max(values))}"]
