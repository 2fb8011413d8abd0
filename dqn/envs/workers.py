"""Environments in processes of their own, whose errors reach the run as one sentence."""

import logging
from collections.abc import Iterable
from typing import Any

from gymnasium.vector import AsyncVectorEnv
from gymnasium.vector.async_vector_env import AsyncState

log = logging.getLogger("dqn")


class Workers(AsyncVectorEnv):
    """Gymnasium's AsyncVectorEnv without its coloured tracebacks on stderr: they go to the run's log, and the first
    error of a worker is raised here as it was raised there."""

    def _raise_if_errors(self, successes: Iterable[bool]) -> None:
        failed = [self.error_queue.get() for success in successes if not success]
        for index, _, _, trace in failed:
            log.debug("Worker %d ended here\n%s", index, trace)
            pipes: Any = self.parent_pipes
            pipes[index].close()
            pipes[index] = None  # as Gymnasium marks a worker that has ended
        if failed:
            self._state = AsyncState.DEFAULT
            raise failed[0][2]
