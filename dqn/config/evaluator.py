"""Where and how long evaluations play: the one place that decides it."""

import logging
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from dqn.acting.actor import Actor
from dqn.config import parts
from dqn.errors import UsageError
from dqn.networks.qnetwork import QNetwork
from dqn.ops.schedules import Constant
from dqn.programs import Prepare
from dqn.seeding import stream
from dqn.tracking.episode_info import summary
from dqn.tracking.evaluation import known_values, play
from dqn.tracking.logger import EvaluationProgress

log = logging.getLogger("dqn")
TIMES_LONGEST, SHORTEST_CAP = 10, 1000


class Evaluator:
    """Evaluates a network with the run's settings, from the same start states every time.

    It plays in environments of its own, which stay open between evaluations, or, where `tracking.evaluate_in=training`,
    in those that it is given: of some simulators only one can run. Whoever trains in them begins them anew afterwards.

    An episode ends after `tracking.evaluate_cap` decisions. Where the environment has no time limit a policy may go in
    circles for ever, and it ends after ten times the longest episode of training (1,000 decisions at least).
    """

    def __init__(
        self,
        cfg: DictConfig,
        network: QNetwork,
        device: torch.device,
        prepare: Prepare,
        training: Any = None,
        optimal: Any = None,
        shown: bool = True,
    ):
        self.cfg, self.network, self.device, self.prepare = cfg, network, device, prepare
        self.training = training if cfg.tracking.evaluate_in == "training" else None
        self.shown = shown  # how far it is
        self.optimal = optimal  # Q* of states that are seen, where it is known
        self.envs: Any = None
        self.only_one = False  # no second environment can be made
        self.generator, self.epsilon = torch.Generator(device), Constant(0.0)
        self.actors: dict[int, Actor] = {}  # by how many environments they act in

    def __call__(
        self,
        episodes: int | None = None,
        epsilon: float | None = None,
        seed: int | None = None,
        stop: Callable[[], bool] = bool,
        longest: int = 0,
    ) -> dict[str, Any]:
        """One evaluation; `longest` is the length of the longest training episode. Returns what tracking.evaluation's
        `play` does, with epsilon, the cap, the values of the infos that tracking.info names, and the distance to Q*
        where it is known."""
        cfg = self.cfg.tracking
        episodes = cast(int, cfg.evaluate_episodes if episodes is None else episodes)
        epsilon = cast(float, cfg.evaluate_epsilon if epsilon is None else epsilon)
        seed = cast(int, self.cfg.seed if seed is None else seed)
        envs = self.environments(episodes)
        cap = self.cap(envs, longest)
        envs.set_cap(cap)
        actor = self.actor(envs.num_envs, epsilon)
        self.generator.manual_seed(stream(seed, "evaluation"))
        self.network.eval()  # mean weights and fixed fractions: nothing is drawn
        try:
            with EvaluationProgress(episodes, self.shown) as progress:
                result = play(actor, envs, episodes, stream(seed, "evaluation"), cap, stop, progress)
            episode_info = result.pop("episode_info")
            if envs.episode_info:
                result["info"] = summary(envs.episode_info, episode_info)
            if self.optimal is not None:
                h = instantiate(self.cfg.transform)
                result["known_q"] = known_values(self.network, self.optimal, self.device, self.cfg.gamma, h)
        finally:
            self.network.train()
            envs.set_cap(None)
        if result["capped"] and envs.limit is None:
            log.warning(
                "%d of %d evaluation episodes were cut after %s decisions: the environment has no time limit; set "
                "env.max_episode_steps, or raise tracking.evaluate_cap.",
                result["capped"], result["episodes"], f"{cap:,}",
            )  # fmt: skip
        return {**result, "epsilon": epsilon, "cap": cap}

    def know_optimal(self) -> None:
        """Ask an environment for its Q*, where it knows it."""
        self.optimal = self.environments(1).optimal_q(self.cfg.gamma)

    def cap(self, envs: Any, longest: int) -> int:
        """How many decisions an episode may have."""
        most = self.cfg.tracking.evaluate_cap
        return most if envs.limit is not None else min(most, max(SHORTEST_CAP, TIMES_LONGEST * longest))

    def actor(self, environments: int, epsilon: float) -> Actor:
        """One that acts in so many environments, but for a share `epsilon` greedily, and remembers nothing yet."""
        self.epsilon.value = float(epsilon)
        if environments not in self.actors:
            self.actors[environments] = Actor(
                self.network, self._policy(), self.device, self.generator, environments, self.prepare
            )
        actor = self.actors[environments]
        actor.forget(np.ones(environments, bool))
        return actor

    def _policy(self) -> Any:
        return parts.evaluation_policy(self.cfg, self.epsilon)

    def environments(self, episodes: int) -> Any:
        """The environments in which so many episodes are played; they stay open until `close`."""
        if self.training is not None:
            return self.training
        count = min(episodes, self.cfg.tracking.evaluate_envs)
        if self.envs is None or (self.envs.num_envs != count and not self.only_one):
            self.close()
            self.envs = self._made(count)
        return self.envs

    def _made(self, count: int) -> Any:
        """So many environments, or one where no second can be made. Errors: UsageError where none can."""
        try:
            return parts.evaluation_environments(self.cfg, count)
        except UsageError as error:
            if count == 1:
                raise
            one = parts.evaluation_environments(self.cfg, 1)
            log.warning(
                "Evaluations play in one environment, as no second can be made: %s Set tracking.evaluate_envs=1.", error
            )
            self.only_one = True
            return one

    def close(self) -> None:
        if self.envs is not None:
            self.envs.close()
            self.envs = None
