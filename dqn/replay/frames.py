"""Frames: of an observation that is a stack of frames only the newest is kept; the rows before make it whole again."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dqn.errors import UsageError
from dqn.types import Spec


def frame(spec: Spec, frame_stack: int) -> Spec:
    """What is kept of an observation. Errors: UsageError where it is no stack of so many frames."""
    if frame_stack == 1:
        return spec
    if spec.parts or spec.obs_shape[:1] != (frame_stack,):
        raise UsageError(
            f"replay.frame_stack={frame_stack} needs observations whose first axis counts so many frames, these are "
            f"{' + '.join(name for name, _ in spec.parts) or spec.obs_shape}: stack them with "
            "gymnasium.wrappers.FrameStackObservation (env.wrappers), or set replay.frame_stack=1."
        )
    return replace(spec, obs_shape=spec.obs_shape[1:])


def newest(obs: Any, kept: Tensor) -> Any:
    """The newest frame of each stack [K, E, k, ...], as they are `kept`; recorded data may bring single frames."""
    return obs[:, :, -1] if obs.ndim > kept.ndim else obs


def whole(frames: Tensor, reset: Tensor, at: Tensor, back: Tensor, num_envs: int, padding: str) -> Tensor:
    """Stacks [..., k, *frame] of the rows at places `at` [...] in frames [R · E, *frame]; `back` is 0 … k − 1.

    A row marked `reset` [R, E] is the last of an episode: what lies before it and further back is of another, and the
    episode's first frame (`padding` is reset) or zeros (zero) stand in its place.
    """
    at, steps, size = at.unsqueeze(-1), back.flip(0), len(frames)
    other = reset.take((at - back[1:] * num_envs) % size)
    own = (~other).cumprod(-1).sum(-1, keepdim=True)  # rows before this one that are of its episode
    at = (at - torch.minimum(steps, own) * num_envs) % size
    obs = frames.index_select(0, at.flatten()).unflatten(0, at.shape)
    if padding == "reset":
        return obs
    there = (steps <= own).reshape(*at.shape, *[1] * (frames.ndim - 1))
    return obs.masked_fill(~there, 0) if obs.is_floating_point() else obs * there  # 20 times as fast; NaN · 0 is NaN


def prove(again: Tensor, given: Any, frame_stack: int, padding: str) -> None:
    """Whether stacks come back as they were given. Errors: UsageError where they do not."""
    if given.ndim == again.ndim and not torch.equal(again, torch.as_tensor(given)):
        raise UsageError(
            f"replay.frame_stack={frame_stack} needs observations that are an episode's last {frame_stack} frames "
            f"along their first axis, the newest last, and these are not, or not with replay.frame_padding={padding}: "
            "set that to reset or zero, or replay.frame_stack=1."
        )
