"""What a run has learnt, in a program of one's own: agent = dqn.load("runs/NAME"); action = agent.act(obs)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import gymnasium
import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from dqn import parts
from dqn.acting.actor import Actor
from dqn.acting.exploration import EpsilonGreedy
from dqn.cli import opened_run, run_directory
from dqn.envs.single import make_one
from dqn.envs.tensor.envs import TensorEnvs
from dqn.execution.device import choose_device
from dqn.networks.qnetwork import QNetwork
from dqn.ops.schedules import Constant
from dqn.options import check
from dqn.tracking.checkpoint import Checkpoints, Snapshot, part
from dqn.types import MASK, UsageError


def trained(
    directory: Path, device: torch.device, trust: Sequence[str] = ()
) -> tuple[DictConfig, Any, QNetwork, Snapshot]:
    """A run's configuration, one environment of its kind, its network, and the checkpoint that was read.

    Errors: UsageError, also where the run names code that is neither of this package nor of modules in `trust`.
    """
    cfg = opened_run(directory, trust)
    check(cfg)
    snapshot = Checkpoints(directory / "checkpoints").load(weights_only=True)
    envs = parts.evaluation_environments(cfg, 1)
    network = parts.network(cfg, envs.spec)
    network.load_state_dict(part(snapshot.tensors, "learner/online/"))
    return cfg, envs, network.to(device), snapshot


def load(run: str, device: str = "cpu", trust: Sequence[str] = ()) -> "Agent":
    """The agent of the run in directory `run`; see dqn.load."""
    chosen, _ = choose_device(device)
    return Agent(*trained(run_directory("run", str(run)), chosen, trust)[:3], chosen)


class Agent:
    """A trained network and the spaces it was trained in; acts for one environment at a time, greedily.

    What it sees is what the run's environments show, wrappers included (`make` makes one), and the actions are theirs.
    """

    def __init__(self, cfg: DictConfig, envs: Any, network: QNetwork, device: torch.device):
        self.cfg, self.envs, self.network, self.device = cfg, envs, network.eval(), device
        nothing = torch.Generator(device)  # a greedy action needs no luck
        self.actor = Actor(network, EpsilonGreedy(Constant(0.0)), device, nothing)

    def begin(self) -> None:
        """An episode begins: whatever a recurrent network remembers is of another."""
        self.actor.forget(np.ones(1, bool))

    def act(self, obs: Any, mask: Any = None) -> Any:
        """The action for what one environment shows; `mask` [A] are the legal ones, info["action_mask"]."""
        action = self.actor.act(self._seen(obs, mask), 0)
        return action[0] if isinstance(self.envs, TensorEnvs) else self.envs.actions(action)[0]

    @torch.no_grad()
    def q(self, obs: Any, mask: Any = None) -> np.ndarray:
        """What the network says of each action [A], remembering what `act` was shown before; an illegal one has
        types.ILLEGAL."""
        seen = torch.from_numpy(self._seen(obs, mask)).to(self.device)
        return self.network.step(seen, self.actor.remembered)[0].q[0].cpu().numpy()

    def make(self, **kwargs: Any) -> gymnasium.Env:
        """A Gymnasium environment as the run's, with more arguments: render_mode="human" to watch it.

        Errors: UsageError for worlds that are no single Gymnasium environments.
        """
        env = self.cfg.env
        if isinstance(self.envs, TensorEnvs) or env.vectorization == "vector_entry_point":
            raise UsageError(f"{self.envs.id} is no single Gymnasium environment: make what is to be seen yourself.")
        options = {**cast(dict, OmegaConf.to_container(env.kwargs, resolve=True)), **kwargs}
        limit, wrappers = env.max_episode_steps, parts.wrappers_of(self.cfg)
        return make_one(0, env.id, env.imports, options, limit, None, wrappers).env  # pyright: ignore[reportAttributeAccessIssue]  # of Watched

    def _seen(self, obs: Any, mask: Any) -> np.ndarray:
        if isinstance(self.envs, TensorEnvs):
            return np.asarray(obs, self.envs.spec.obs_dtype)[None]
        if not self.envs.masked:
            return self.envs.observations.read(_batched(obs))
        if self.envs.observations.own_mask:
            mask = obs[MASK]
        legal = np.ones(self.envs.actions.n, bool) if mask is None else np.asarray(mask, bool)
        return self.envs.observations.read(_batched(obs), legal[None])


def _batched(obs: Any) -> Any:
    if isinstance(obs, Mapping):
        return {key: _batched(inner) for key, inner in obs.items()}
    return np.asarray(obs)[None]
