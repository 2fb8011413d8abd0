"""Learning from recorded data: the collector that plays nothing."""

from collections.abc import Callable

from torch import Tensor

from dqn.ops.clock import Times
from dqn.protocols import Environments
from dqn.types import Rows


class Offline:
    """Nothing is collected: the memory is a dataset, and env_steps only count the time until the next update."""

    num_envs, due = 1, False

    def __init__(self, envs: Environments):
        self.envs = envs  # of the run's kind, for what is asked of them

    def collect(self, now: int, times: Times, store: Callable[[Rows], None], seconds: dict[str, float]) -> int:
        return times.next_stop(now)

    def begin(self, seed: int) -> None:
        return None

    def close(self) -> None:
        self.envs.close()

    def state(self) -> dict[str, Tensor]:
        return {}

    def load(self, state: dict[str, Tensor]) -> None:
        pass

    def replay(self, seed: int) -> bool:
        return True
