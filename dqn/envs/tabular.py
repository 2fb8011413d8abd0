"""Worlds of numbered states whose Q* is known by dynamic programming.

Gymnasium's TimeLimit ends an episode by truncation, so their Q* is that of the infinite horizon, and an agent that
mistakes a truncation for an end is found out.
"""

from typing import Any

import gymnasium
import numpy as np

from dqn.errors import UsageError


def value_iteration(
    successor: np.ndarray,
    probability: np.ndarray,
    reward: np.ndarray,
    gamma: float,
    final: np.ndarray | None = None,
    tolerance: float = 1e-10,
    legal: np.ndarray | None = None,
) -> np.ndarray:
    """Q*: iterate Q(s, a) ← r(s, a) + γ Σ_j p_j(s, a) max_a′ Q(s_j(s, a), a′) until it moves less than `tolerance`.

    successor [S, A, J] state numbers, probability [S, A, J], reward [S, A] → Q* [S, A]; the value of `final` states
    [S] bool is 0; the maximum is over the `legal` actions [S, A] bool, at least one a state. Bellman (1957).
    Errors: UsageError unless 0 ≤ γ < 1, where the iteration is a contraction.
    """
    if not 0 <= gamma < 1:
        raise UsageError(f"Q* of a world without an end needs gamma below 1, got gamma={gamma}.")
    lives = 1.0 if final is None else ~final
    allowed = True if legal is None else legal
    q = np.zeros_like(reward)
    while True:
        best = q.max(1, where=allowed, initial=-np.inf)
        new = reward + gamma * (probability * (lives * best)[successor]).sum(-1)
        if np.abs(new - q).max() <= tolerance * (1 - gamma):
            return new
        q = new


class TabularEnv(gymnasium.Env):
    """A finite MDP given by tables: successor and probability [S, A, J], reward [S, A]; starts in any state.

    `noise` is the standard deviation of a Gaussian added to every reward (Q* does not change). The last `final`
    states end the episode when they are reached. `legal` [S, A] bool: actions that may be taken, told as
    info["action_mask"]; None: all, and nothing is told. Errors: ValueError when an illegal action is taken.
    """

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(
        self,
        successor: np.ndarray,
        probability: np.ndarray,
        reward: np.ndarray,
        noise: float = 0.0,
        final: int = 0,
        legal: np.ndarray | None = None,
    ):
        states, actions = reward.shape
        self.successor, self.probability, self.reward, self.noise = successor, probability, reward, noise
        self.final = np.arange(states) >= states - final
        self.cumulative = probability.cumsum(-1)[..., :-1]
        self.observation_space = gymnasium.spaces.Discrete(states)
        self.action_space = gymnasium.spaces.Discrete(actions)
        self.legal = legal
        self.state = 0

    def _info(self) -> dict[str, Any]:
        return {} if self.legal is None else {"action_mask": self.legal[self.state].astype(np.int8)}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict]:
        super().reset(seed=seed)
        self.state = int(self.np_random.integers(np.count_nonzero(~self.final)))
        return self.state, self._info()

    def step(self, action: int) -> tuple[int, float, bool, bool, dict]:
        here = self.state, int(action)
        if self.legal is not None and not self.legal[here]:
            raise ValueError(f"illegal action {here[1]} in state {here[0]}")
        branch = self.cumulative[here].searchsorted(self.np_random.random(), side="right")
        self.state = int(self.successor[here][branch])
        reward = float(self.reward[here])
        if self.noise:
            reward += self.noise * float(self.np_random.standard_normal())
        return self.state, reward, bool(self.final[self.state]), False, self._info()

    def optimal_q(self, gamma: float) -> np.ndarray:
        """Q* [S, A] of the infinite horizon; NaN in final states, where nothing is ever decided, and where illegal."""
        q = value_iteration(self.successor, self.probability, self.reward, gamma, self.final, legal=self.legal)
        q[self.final] = np.nan
        if self.legal is not None:
            q[~self.legal] = np.nan
        return q


class RandomMDP(TabularEnv):
    """Random MDP: each (s, a) leads to `branching` distinct states with Dirichlet(1) probabilities, reward ~ U(0, 1).

    `legal` is the probability that an action may be taken in a state, drawn once; at least one always may.
    Archibald, McKinnon & Thomas (1995), "On the generation of Markov decision processes" (Garnet).
    Errors: UsageError when a size is not positive, `branching` exceeds `states` or `legal` is no probability.
    """

    def __init__(
        self,
        states: int = 1000,
        actions: int = 4,
        branching: int = 5,
        world_seed: int = 0,
        noise: float = 0.0,
        final: int = 0,
        legal: float = 1.0,
    ):
        if not 0 <= legal <= 1:
            raise UsageError(f"RandomMDP needs 0 ≤ legal ≤ 1, got legal={legal}.")
        if min(states, actions, branching) < 1 or branching > states or not 0 <= final < states:
            raise UsageError(
                f"RandomMDP needs states, actions ≥ 1, 1 ≤ branching ≤ states and 0 ≤ final < states, got "
                f"states={states}, actions={actions}, branching={branching}, final={final}."
            )
        rng = np.random.default_rng(world_seed)
        successor = np.stack([rng.choice(states, branching, replace=False) for _ in range(states * actions)]).reshape(
            states, actions, branching
        )
        probability = rng.dirichlet(np.ones(branching), (states, actions))
        mask = None
        if legal < 1:  # numbers of its own, so that successors and rewards are those of the world without a mask
            coins = np.random.default_rng((world_seed, 1)).random((states, actions))
            mask = (coins < legal) | (coins == coins.min(1, keepdims=True))
        super().__init__(successor, probability, rng.random((states, actions)), noise, final, mask)


class Chain(TabularEnv):
    """A row of states with the actions left (0) and right (1); rewards ~ U(0, 1), drawn once; walls at both ends.

    With probability `slip` the step goes the other way.
    Errors: UsageError when there are fewer than 2 states or `slip` is not a probability.
    """

    def __init__(self, states: int = 10, slip: float = 0.0, world_seed: int = 0, noise: float = 0.0):
        if states < 2 or not 0 <= slip <= 1:
            raise UsageError(f"Chain needs states ≥ 2 and 0 ≤ slip ≤ 1, got states={states}, slip={slip}.")
        here = np.arange(states)
        ways = np.stack([np.maximum(here - 1, 0), np.minimum(here + 1, states - 1)], -1)  # [S, 2]
        successor = np.stack([ways, ways[:, ::-1]], -1)  # [S, A, 2]: as asked, and slipped
        probability = np.broadcast_to(np.array([1 - slip, slip]), successor.shape)
        super().__init__(successor, probability, np.random.default_rng(world_seed).random((states, 2)), noise)
