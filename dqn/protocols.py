"""The interface of every part that someone may write, with shapes.

Shapes: **T** time, **B** batch, **E** environments, **A** actions, **N** atoms, **F** features, **S** state of a core.
A class fits a protocol when it has these methods and attributes; it need not inherit anything.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from dqn.types import Backup as Future
from dqn.types import Batch, Rows, Spec, Step, Values

Inverse = Callable[[Tensor], Tensor]  # h⁻¹ of a value transform
Parameters = Iterator[torch.nn.Parameter]


class Torso(Protocol):
    """Turns what is observed into features. Made with the observation's Spec."""

    features: int

    def __call__(self, obs: Any) -> Tensor:
        """Observations [..., *obs_shape], or a dict of such → features [..., F], or state numbers [...] int64."""
        ...


class Core(Protocol):
    """Remembers the observations before. Made with the number of features."""

    features: int
    state_size: int  # S

    def __call__(self, x: Tensor, state: Tensor, begins: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Features [T, B, F], a state [B, S], rows that begin an episode [T, B] → features, the state after them."""
        ...


class Head(Protocol):
    """Says what the return is, and how far a prediction is from its target. Made with (features, num_actions)."""

    def __call__(self, features: Tensor, mask: Tensor | None = None) -> Values:
        """Features [..., F] and legal actions [..., A] → q [..., A] and atoms [..., A, N]."""
        ...

    def mix(self, values: Values, pi: Tensor, inverse: Inverse) -> tuple[Tensor, Tensor | None]:
        """Values and a policy [..., A], or the number of one action [...] → atoms [..., N] of its return and their
        probabilities (None: equal)."""
        ...

    def loss(self, values: Values, action: Tensor, atoms: Tensor, probs: Tensor | None) -> tuple[Tensor, Tensor]:
        """Predictions at [T, B], actions [T, B], target atoms [T, B, N] → loss and td_error, each [T, B]."""
        ...


class Backup(Protocol):
    """Says which future value stands in at the next state (ops.backups)."""

    def __call__(
        self, following: Values, online: Callable[[], Values], here: Callable[[], Values], action: Tensor, /
    ) -> Future:
        """The target network's values of the next state [T, B, A]; on request the online network's of the next state
        and the target network's of this one; the action taken [T, B]."""
        ...


class Transform(Protocol):
    """The scale h on which returns are learnt (ops.transforms)."""

    def __call__(self, x: Tensor) -> Tensor: ...

    def inverse(self, x: Tensor) -> Tensor: ...


class Term(Protocol):
    """A loss beside the temporal difference (learning.terms)."""

    def __call__(self, values: Values, action: Tensor, batch: Batch, /) -> Tensor:
        """Predictions at [T, B], the actions taken [T, B], and all that was drawn → a loss [T, B]."""
        ...


class Exploration(Protocol):
    """Picks actions (acting.exploration)."""

    name: str  # of the number that varies, for the log

    @property
    def rate(self) -> Callable[[int], float]:
        """The number that varies, as a function of env_steps."""
        ...

    def __call__(self, values: Values, rate: Tensor, generator: torch.Generator) -> Tensor:
        """Values [E, A], the rate 0-D → legal actions [E] int64."""
        ...


class Stateful(Protocol):
    """What has something to keep in a checkpoint."""

    def state(self) -> dict[str, Tensor]: ...

    def load(self, state: dict[str, Tensor]) -> None: ...


class Sampler(Stateful, Protocol):
    """Draws starts of sequences from the replay memory (replay.samplers)."""

    newest: bool  # draws each start once, from all environments at a time, as it becomes legal
    reports: bool  # needs to be told the errors

    def attach(self, ring: Any) -> None: ...

    def ready(self, ring: Any) -> bool: ...

    def anneal(self, env_steps: int) -> None: ...

    def sample(self, ring: Any, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Row [B], environment [B] and weight [B] or [T, B] of each start."""
        ...

    def report(self, slot: Tensor, env: Tensor, td_error: Tensor, valid: Tensor) -> None: ...


class Environments(Protocol):
    """E environments that play side by side (envs.gym, envs.tensor)."""

    id: str
    spec: Spec
    num_envs: int
    mode: Any
    limit: int | None
    episode_info: tuple[str, ...]

    def reset(self, seed: int) -> np.ndarray: ...

    def step(self, action: np.ndarray) -> Step: ...

    def set_cap(self, cap: int | None) -> None: ...

    def optimal_q(self, gamma: float) -> np.ndarray | None: ...

    def close(self) -> None: ...


class Collector(Stateful, Protocol):
    """Acts in environments and hands on what happened (acting)."""

    envs: Any
    num_envs: int

    @property
    def due(self) -> bool:
        """A synchronisation point must come, because no more can be kept for a resume."""
        ...

    def begin(self, seed: int) -> Rows | None: ...

    def collect(self, now: int, times: Any, store: Callable[[Rows], None], seconds: dict[str, float]) -> int: ...

    def replay(self, seed: int) -> bool: ...

    def close(self) -> None: ...


class Engine(Protocol):
    """Makes programs of steps (execution.engines); made with a device and the number of calls to come."""

    why: str  # what was chosen, in words
    chosen: str | None  # a choice that a resume keeps

    def choose(self, chosen: str | None) -> None: ...

    def capture(self, step: Callable, optimizer: Any = None, small: bool = False) -> Callable: ...


class Normalizer(Protocol):
    """Brings observations to the scale on which networks learn (networks.normalizers)."""

    def __call__(self, seen: Any) -> Any: ...

    def gather(self, seen: Any, decided: Tensor) -> None: ...

    def refresh(self) -> None: ...

    def parameters(self) -> Parameters: ...

    def state_dict(self) -> Mapping[str, Tensor]: ...
