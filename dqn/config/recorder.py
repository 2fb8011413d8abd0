"""Where recordings play: one environment that renders, or whose observations can be drawn, and the network in it."""

import copy
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from dqn.acting.actor import Actor
from dqn.config import parts
from dqn.envs.pictures import picture, rendered
from dqn.errors import RunError, UsageError
from dqn.networks.qnetwork import QNetwork
from dqn.networks.records import inner, split
from dqn.ops.schedules import Constant
from dqn.seeding import generator, stream
from dqn.tracking.video import Canvas, Mp4, Thinned
from dqn.types import MASK, PRIOR

log = logging.getLogger("dqn")
FPS, SLOW = 30, 6  # frames a second where the environment does not say; of boards, whose every step is to be seen
MOST = 3000  # decisions of a recording
STILL = 0.6  # seconds for which an episode's end is shown


@dataclass
class Recording:
    """What was played: raw returns and lengths of the episodes, and whether the last one was cut."""

    returns: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    cut: bool = False
    fps: float = FPS


class Recorder:
    """Plays a network in an environment of its own and draws every step, with the value of each action beside it.

    Values are those of returns, where the network learns a transform of them. Errors: UsageError where the environment
    shows nothing, or cannot be made.
    """

    def __init__(self, cfg: DictConfig, network: QNetwork, device: torch.device, epsilon: float = 0.0):
        self.cfg, self.network = cfg, network
        self.envs, self.renders = _environment(cfg, device)
        self.spec, self.transform = self.envs.spec, instantiate(cfg.transform)
        policy, draws = parts.evaluation_policy(cfg, Constant(epsilon)), generator(cfg.seed, "recording", device)
        self.actor = Actor(network, policy, device, draws)
        self.canvas = Canvas(self._names())
        self.fps = self._fps()

    def record(self, path: Path | None, episodes: int, seed: int, most: int = MOST) -> tuple[Recording, Thinned]:
        """Play so many episodes, `most` decisions at most; what was played, and its frames for a GIF.

        Where there is a path, `path`.mp4 is written meanwhile.
        """
        recording, thinned = Recording(fps=self.fps), Thinned(self.fps)
        mp4 = Mp4(path, self.fps) if path is not None else None
        training = self.network.training
        self.network.eval()  # mean weights and fixed fractions: nothing is drawn
        try:
            for frame in self._frames(recording, episodes, seed, most):
                thinned.add(frame)
                if mp4 is not None:
                    mp4.add(frame)
        finally:
            self.network.train(training)
            if mp4 is not None:
                mp4.close()
        return recording, thinned

    def _frames(self, recording: Recording, episodes: int, seed: int, most: int) -> Iterator[np.ndarray]:
        decisions = 0
        for episode in range(episodes):
            obs, total, length = self.envs.reset(stream(seed, "recording", episode)), 0.0, 0
            self.actor.forget(np.ones(1, bool))
            over = False
            while not over and decisions < most:
                q = self._q(obs)
                action = self.actor.act(obs, 0)
                said = self._said(episode, episodes, length, total)
                yield self.canvas(self._look(obs), said, q, int(action[0]))
                step = self.envs.step(action)
                total, length, decisions = total + float(step.reward[0]), length + 1, decisions + 1
                over = bool(step.terminated[0] or step.truncated[0])
                obs = step.obs if not over or step.final_obs is None else step.final_obs
            recording.returns.append(total)
            recording.lengths.append(length)
            recording.cut = not over
            last = self.canvas(self._look(obs), self._said(episode, episodes, length, total), None, None)
            yield from (last for _ in range(max(1, round(STILL * self.fps))))
            if decisions >= most:
                return

    @staticmethod
    def _said(episode: int, episodes: int, length: int, total: float) -> list[str]:
        return [f"episode {episode + 1} of {episodes}", f"step {length}", f"return {total:.6g}"]

    @torch.no_grad()
    def _q(self, obs: np.ndarray) -> np.ndarray:
        """The value of each action [A]; what is illegal keeps types.ILLEGAL."""
        values = self.network.step(torch.from_numpy(np.asarray(obs)).to(self.actor.device), self.actor.remembered)[0]
        q = values.q if values.mask is None else torch.where(values.mask, self.transform.inverse(values.q), values.q)
        return (q if values.mask is not None else self.transform.inverse(q))[0].cpu().numpy()

    def _look(self, obs: np.ndarray) -> np.ndarray:
        """What there is to be seen."""
        frame = _rendered(self.envs) if self.renders else _picture(self.envs, obs)
        if frame is None:
            raise _unseen(self.envs.id)
        return frame

    def _names(self) -> Sequence[str]:
        """Of the actions, where the environment has words for them."""
        one = getattr(getattr(self.envs, "envs", None), "envs", [None])[0]
        meanings = getattr(getattr(one, "unwrapped", None), "get_action_meanings", None)
        told: Any = meanings() if callable(meanings) else []
        names = [str(name).lower() for name in told]
        return names if len(names) == self.spec.num_actions else [str(a) for a in range(self.spec.num_actions)]

    def _fps(self) -> float:
        if not self.renders:
            board = inner(self.spec)
            return FPS if len(board.obs_shape) == 1 or max(board.obs_shape, default=0) > 30 else SLOW
        fps = self.envs.envs.envs[0].metadata.get("render_fps")
        return float(fps) if isinstance(fps, (int, float)) and 1 <= fps <= 120 else FPS

    def close(self) -> None:
        self.envs.close()


class Filming:
    """Puts a recording of one episode into TensorBoard about every `tracking.video_every` env_steps: a callback of the
    trainer, called when anything was logged. Where nothing can be seen, that is said once and the run goes on.

    It plays in an environment of its own with random numbers of its own, so the run is the same with and without it.
    """

    TAG, MOST = "video/episode", 500  # decisions

    def __init__(self, cfg: DictConfig, network: QNetwork, device: torch.device):
        self.cfg, self.network, self.device = cfg, network, device
        self.every = cfg.tracking.video_every
        self.filmed = -1 if cfg.resume is None else None  # multiples of `every`; of a resume not known yet
        self.recorder: Recorder | None = None
        self.blind = False

    def __call__(self, trainer: Any, numbers: dict[str, Any]) -> None:
        due = trainer.env_steps // self.every
        if self.filmed is None:  # what this resume has seen first is not a multiple that it has crossed
            self.filmed = (trainer.env_steps - 1) // self.every
        if self.blind or due <= self.filmed:
            return
        self.filmed = due
        try:
            if self.cfg.tracking.evaluate_in == "training":
                raise UsageError("they would play in the environments of training (tracking.evaluate_in=training).")
            with trainer.meter.timed("evaluate"):
                self.recorder = self.recorder or Recorder(self.cfg, self.network, self.device)
                _, frames = self.recorder.record(None, 1, self.cfg.seed, self.MOST)
                trainer.logger.gif(self.TAG, frames.gif(), frames.shape, trainer.env_steps)
        except (UsageError, RunError) as error:
            self.blind = True
            log.warning("There are no recordings of this run: %s", error)

    def close(self) -> None:
        if self.recorder is not None:
            self.recorder.close()


def _environment(cfg: DictConfig, device: torch.device) -> tuple[Any, bool]:
    """One environment to be looked at, and whether it renders; of those that do not the observations are drawn."""
    if "model" in cfg.env:
        raise UsageError("A language model is not to be seen: python -m dqn.generate run=RUN out=page.html shows it.")
    if "world" in cfg.env:
        return parts.environments(cfg, device, num_envs=1), False
    if cfg.env.vectorization == "vector_entry_point":
        return parts.evaluation_environments(cfg, 1), False
    plain = copy.deepcopy(cfg)
    kwargs: Any = OmegaConf.to_container(plain.env.kwargs, resolve=True) or {}
    how: dict[str, Any] = {"num_envs": 1, "vectorization": "sync", "autoreset": "next_step"}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Gymnasium's, of an environment that does not render
            envs: Any = parts.environments(plain, **how, kwargs={**kwargs, "render_mode": "rgb_array"})
    except UsageError:  # it takes no render_mode, or it cannot be made at all
        envs = parts.environments(plain, **how)
    try:
        obs = envs.reset(0)
        if _rendered(envs) is not None:
            return envs, True
        if _picture(envs, obs) is None:
            raise _unseen(envs.id)
    except BaseException:
        envs.close()
        raise
    return envs, False


def _rendered(envs: Any) -> np.ndarray | None:
    """What the one environment renders, None where it does not. Errors: UsageError where it fails at it."""
    try:
        return rendered(envs.envs.envs[0])
    except ImportError as error:
        said = " ".join(str(error).split())[:200]
        raise UsageError(f"{envs.id} cannot render ({said}): pip install 'dqn-family[video]'.") from error
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise UsageError(f"{envs.id} cannot render ({type(error).__name__}: {said}).") from error


def _unseen(id: str) -> UsageError:
    return UsageError(
        f"{id} does not render: it has no render_mode='rgb_array' that gives a picture, and its observations are no "
        "images. Give it one, or wrap it with env.wrappers."
    )


def _picture(envs: Any, obs: np.ndarray) -> np.ndarray | None:
    """A drawing of the first part of an observation [1, …] that can be seen."""
    if not envs.spec.parts:
        return picture(np.asarray(obs)[0], type(getattr(envs, "world", None)).__name__, envs.spec.states)
    shown = split(envs.spec.parts, torch.from_numpy(np.asarray(obs)))
    found = (picture(part[0].numpy()) for name, part in shown.items() if name not in (MASK, PRIOR))
    return next((frame for frame in found if frame is not None), None)
