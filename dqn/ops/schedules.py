"""Schedules: pure functions of a count, with absolute lengths, so that no resume or budget moves them."""


class Constant:
    """value(t) = value."""

    def __init__(self, value: float):
        self.value = float(value)

    def __call__(self, count: int) -> float:
        return self.value


class Exponential:
    """value(t) = end + (start − end) · (1 − 1/steps)^t, and 0 from t = `until` on (None: never), t in env_steps.

    It is what ε ← ε − (ε − end)/steps gives, once for each decision: the exploration of Clark et al. (2024), Beyond The
    Rainbow, table D6 and the authors' code. Errors: ValueError when `steps` or `until` is not positive.
    """

    def __init__(self, start: float, end: float, steps: int, until: int | None = None):
        if steps < 1 or (until is not None and until < 1):
            raise ValueError(f"an exponential schedule needs steps ≥ 1 and until ≥ 1 or null, got {steps} and {until}")
        self.start, self.end, self.steps, self.until = float(start), float(end), int(steps), until

    def __call__(self, count: int) -> float:
        if self.until is not None and count >= self.until:
            return 0.0
        return self.end + (self.start - self.end) * (1 - 1 / self.steps) ** count


class Linear:
    """value(t) = start + (end − start) · clip((t − delay) / steps, 0, 1), t in env_steps.

    Errors: ValueError when `steps` is not positive.
    """

    def __init__(self, start: float, end: float, steps: int, delay: int = 0):
        if steps < 1:
            raise ValueError(f"a linear schedule needs steps ≥ 1, got {steps}")
        self.start, self.end, self.steps, self.delay = float(start), float(end), int(steps), int(delay)
        self.last = self.start + (self.end - self.start)

    def __call__(self, count: int) -> float:
        if count - self.delay >= self.steps:
            return self.last
        progress = min(max((count - self.delay) / self.steps, 0.0), 1.0)
        return self.start + (self.end - self.start) * progress
