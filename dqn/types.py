"""The vocabulary every room shares.

Shapes: **T** time, **B** batch, **E** environments, **A** actions, **N** atoms, **K** ticks of a block,
**S** states. `# [T, B]` stands where a tensor is first named. `done` = terminated or truncated.
"""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from torch import Tensor

OBSERVATION, MASK = "observation", "action_mask"  # parts of a record: what is no Dict, and the legal actions
PRIOR = "log_prior"  # a part of a record: log π0 of each action, of a policy that is given, as a language model's
EPISODE_INFO = "episode_info"  # in the info of a step that ends an episode: the values that tracking.info names
ILLEGAL = -1e30  # q of an action that may not be taken: never a maximum, no weight in a softmax, and finite: 0 · q = 0


@dataclass(frozen=True)
class Spec:
    """What a world looks like to an agent: the observation's shape and dtype, the number of actions.

    `states` is the number of states when observations are state numbers (Discrete), else 0. `parts` names what lies
    one after the other in an observation that is a record: a uint8 vector of raw bytes in which several arrays
    (the entries of a Dict, the mask of legal actions) travel as one; networks.records reads it. `high` is the largest
    value of a uint8 observation: networks see it as 1.
    """

    obs_shape: tuple[int, ...]
    obs_dtype: np.dtype
    num_actions: int
    states: int = 0
    parts: tuple[tuple[str, "Spec"], ...] = ()
    high: int = 255


@dataclass
class Step:
    """One tick of E environments, as the adapter of the environment reports it.

    `reset[e]`: this tick was not a decision but the autoreset of environment e, its action was ignored. `final_obs[e]`:
    the last observation of the episode that ended at this tick, where `obs[e]` already belongs to the next one
    (autoreset modes SAME_STEP and DISABLED; None in NEXT_STEP, and at ticks where nothing ended). `episode_info[e]`:
    the values that tracking.info names, where an episode of environment e ended; NaN where there is none.
    """

    obs: np.ndarray  # [E, ...] what is seen after the tick
    reward: np.ndarray  # [E]
    terminated: np.ndarray  # [E] bool
    truncated: np.ndarray  # [E] bool
    reset: np.ndarray  # [E] bool
    final_obs: np.ndarray | None = None  # [E, ...], valid where done
    episode_info: np.ndarray | None = None  # [E, I], valid where done

    @property
    def begins(self) -> np.ndarray:
        """[E] bool: `obs[e]` is the first observation of an episode."""
        return self.reset if self.final_obs is None else self.reset | self.terminated | self.truncated


@dataclass
class Rows:
    """A block of K ticks of E environments, as they happened; `obs` has one row more: what is seen now."""

    obs: Any  # [K+1, E, ...]
    action: Any  # [K, E]
    reward: Any  # [K, E]
    terminated: Any  # [K, E] bool
    truncated: Any  # [K, E] bool
    reset: Any  # [K, E] bool
    final_obs: Any = None  # [K, E, ...] valid where done and used only if `splits`
    splits: Any = None  # [K, E] bool: the episode ended here and obs[k+1] belongs to the next one
    core: Any = None  # [K, E, S] what the network's core remembered before each tick
    episode_info: Any = None  # [K, E, I] the values that tracking.info names, valid where an episode ended


@dataclass
class Batch:
    """What a learner sees, time-major; a transition is a sequence of length one.

    `discount` is data: the product of γ over the steps of the return, 0 after a termination. Rows of `obs` are
    P rows of burn-in, the T rows where values are read, and what bootstraps need after them.
    """

    obs: Tensor  # [P+L, B, ...], bool as bytes
    action: Tensor  # [T, B] int64
    reward: Tensor  # [T, B] the n-step return without its bootstrap
    discount: Tensor  # [T, B]
    weight: Tensor  # [B] or [T, B] importance in the loss; 0 where nothing was decided
    bootstrap: Tensor | None = None  # [T, B] int64 row of `obs` to bootstrap from; None: the last T rows
    done: Tensor | None = None  # [T, B] bool, what cuts a λ-return
    state: Tensor | None = None  # [B, S] what the core remembered before the first row
    begins: Tensor | None = None  # [P+L, B] bool, rows that begin an episode: the core forgets before them
    burn_in: int = 0  # P
    slot: Tensor | None = None  # [B] and
    env: Tensor | None = None  # [B]: where in the ring the columns begin

    def tensors(self) -> dict[str, Tensor]:
        return {name: x for name, x in vars(self).items() if isinstance(x, Tensor)}


@dataclass
class Values:
    """What a head says of the return: `q` for acting and backups, `z` (atoms) for losses, `tau` their fractions."""

    q: Tensor  # [..., A]
    z: Tensor | None = None  # [..., A, N]
    tau: Tensor | None = None  # [..., N]
    mask: Tensor | None = None  # [..., A] bool, the legal actions; None: all
    prior: Tensor | None = None  # [..., A] log π0 of a policy that is given (types.PRIOR), up to a constant; None: none


@dataclass
class Backup:
    """Which future value stands in at s′: a distribution over next actions and two numbers."""

    pi: Tensor  # [T, B, A], or, where one action is certain, its number [T, B] int64
    bonus: Tensor | float = 0.0  # [T, B] added to the reward
    entropy: Tensor | float = 0.0  # [T, B] added to the next value


def layout(parts: tuple[tuple[str, Spec], ...]) -> tuple[tuple[int, ...], int]:
    """Where the parts of a record begin, and its length, in bytes: all multiples of 8, so that any part can be viewed
    as numbers of its own dtype where it lies."""
    offsets, end = [], 0
    for _, part in parts:
        offsets.append(end)
        end += -(-prod(part.obs_shape) * part.obs_dtype.itemsize // 8) * 8
    return tuple(offsets), end
