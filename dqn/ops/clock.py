"""The clock: what is due when, as pure functions of env_steps."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Times:
    """When things happen, in env_steps (decisions of all environments together); a period of 0 means never.

    `updates` gradient steps are due at every multiple of `train_every` after `learning_starts`. The target network
    is synced at every multiple of `target_period`, or after every update where that is 0.
    """

    steps: int
    learning_starts: int
    train_every: int
    updates: int
    target_period: int
    log_every: int
    evaluate_every: int
    checkpoint_every: int

    def updates_due(self, before: int, now: int) -> int:
        """Gradient steps that became due in (before, now]."""
        done, due = (max(0, count - self.learning_starts) // self.train_every for count in (before, now))
        return (due - done) * self.updates

    def next_stop(self, now: int) -> int:
        """The first count after `now` at which anything is due that must be done there. A sync of the target network
        is not: it concerns the next update alone, and may be done up to that."""
        behind = max(0, now - self.learning_starts) // self.train_every + 1
        stops = [self.steps, self.learning_starts + behind * self.train_every]
        periods = (self.log_every, self.evaluate_every, self.checkpoint_every)
        return min(stops + [(now // period + 1) * period for period in periods if period])


def crossed(before: int, now: int, period: int) -> int:
    """How many multiples of `period` lie in (before, now]."""
    return now // period - before // period if period > 0 else 0
