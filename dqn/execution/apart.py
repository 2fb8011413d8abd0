"""Learning apart: the learner works in a thread of its own while the environments are stepped.

A compiled update needs Python for a small part of its time, so both go on at once where there is a second core. What
comes out does not depend on who is faster: the actor acts with a copy of the network, brought up to date only when a
learning phase begins, and nobody touches what the learner works on before it has finished.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch


class Here:
    """Everything one after the other: a phase is over when `begin` returns."""

    apart = False

    def begin(self, phase: Callable[[], None]) -> None:
        phase()

    def wait(self) -> None:
        pass


class Apart:
    """One phase at a time in a thread of its own, with as many torch threads as here."""

    apart = True

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(1, "learner", torch.set_num_threads, (torch.get_num_threads(),))
        self.phase: Future[None] | None = None

    def begin(self, phase: Callable[[], None]) -> None:
        self.wait()
        self.phase = self.pool.submit(phase)

    def wait(self) -> None:
        """Until the phase is over. Errors: what it raised."""
        if self.phase is not None:
            phase, self.phase = self.phase, None
            phase.result()
