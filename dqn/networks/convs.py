"""Convolutional torsos: images [..., H, W, C] or [..., C, H, W], bytes or real numbers → features [..., `features`].

Images without an axis for channels, [..., H, W], have one. Stacks of images, [..., F, H, W, C] or [..., F, C, H, W],
are seen as one image with the channels of all F frames, the oldest first. `hidden: null` leaves out the fully connected
layer, for heads that have hidden layers of their own (dueling streams, noisy layers).
`norm: layer` stands after every convolution as LayerNorm over (C, H, W) with a gain for each channel, which is
GroupNorm of one group: the statistics of CleanRL's PQN, but no parameter depends on the image's size. (purejaxql's
normalises each position over its channels alone, flax's default.) Behind the fully connected layer it is LayerNorm.
"""

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from dqn.networks.layers import Linear, hidden_layers, normalisation
from dqn.networks.torsos import real
from dqn.types import Spec

MOST_CHANNELS = 32  # more is taken for a side of the image
Body = Callable[[int], list[nn.Module]]


def image_layout(shape: tuple[int, ...], layout: str = "auto", cube: str | None = None) -> str:
    """`hw`, `hwc` or `chw`: where the channels are. With `auto` two equal neighbours are the sides, else the channels
    are the smaller of the first and last axis.

    `cube` is the answer where both are equally long. Errors: ValueError where there is no telling.
    """
    if layout not in ("auto", "hwc", "chw"):
        raise ValueError(f"torso.layout must be auto, hwc or chw, got {layout!r}")
    if len(shape) == 2:
        return "hw"
    if layout != "auto":
        return layout
    first, middle, last = shape
    if (first == middle) != (middle == last):
        return "hwc" if first == middle else "chw"
    if first == last and cube is not None:
        return cube
    if first == last or min(first, last) > MOST_CHANNELS:
        raise ValueError(
            f"which axis of images {shape} holds the channels is not plain; choose a torso for images "
            "(torso=nature_cnn) and set torso.layout=hwc or chw, or choose torso=mlp"
        )
    return "hwc" if last < first else "chw"


def image_sides(shape: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of images, or of the images in a stack; where there is no telling, the two shortest axes that
    may be they."""
    if len(shape) == 2:
        return shape[0], shape[1]
    first, middle, last = shape[-3:]
    try:
        return (first, middle) if image_layout(shape[-3:], cube="hwc") == "hwc" else (middle, last)
    except ValueError:
        return min(first, last), middle


def _norm(kind: str | None, channels: int) -> list[nn.Module]:
    return [nn.GroupNorm(1, channels)] if normalisation(kind, channels) else []


class Convolutions(nn.Module):
    """Whatever looks at images: brings them to [N, C, H, W], applies `body`, flattens, and one fully connected layer.

    Errors: ValueError for what is no image, or one too small for the strides.
    """

    def __init__(
        self,
        name: str,
        spec: Spec,
        body: Body,
        hidden: int | None,
        norm: str | None,
        layout: str,
        layer: Callable[[int, int], nn.Module],
        cube: str | None = None,
    ):
        super().__init__()
        shape = spec.obs_shape
        if spec.parts:
            raise ValueError(f"torso={name} sees one image, the observation is a Dict; choose torso=dict")
        if len(shape) not in (2, 3, 4):
            raise ValueError(f"torso={name} needs images (H, W, C) or stacks of them, got {shape}; choose torso=mlp")
        if hidden is not None and (not isinstance(hidden, int) or hidden < 1):
            raise ValueError(f"torso.hidden must be a whole number ≥ 1 or null for torso={name}, got {hidden}")
        self.spec, self.axes, self.layout = spec, len(shape), image_layout(shape[-3:], layout, cube)
        channels, *size = self._channels_first(torch.zeros(1, *shape)).shape[1:]
        self.body = nn.Sequential(*body(channels), nn.Flatten())
        try:
            with torch.no_grad():  # in evaluation, where nothing (a power iteration) is moved by the zeros
                flat = self.body.eval()(torch.zeros(1, channels, *size)).shape[1]
        except RuntimeError as error:
            raise ValueError(
                f"images of {size[0]} × {size[1]} are too small for torso={name}; choose torso=minatar_cnn or "
                "torso=mlp, or torso=auto for a Dict"
            ) from error
        self.body.train()
        full = hidden_layers(flat, [hidden] if hidden else [], layer, norm)
        self.full, self.features = nn.Sequential(*full), hidden or flat

    def _channels_first(self, obs: Tensor) -> Tensor:
        """Images [N, (F,) H, W, C] or [N, (F,) C, H, W] → [N, F·C, H, W]."""
        if self.layout == "hw":
            return obs.unsqueeze(1)
        obs = obs.movedim(-1, -3) if self.layout == "hwc" else obs
        return obs.flatten(1, 2) if self.axes == 4 else obs

    def forward(self, obs: Tensor) -> Tensor:
        lead, shape = obs.shape[: -self.axes], obs.shape[-self.axes :]
        images = real(self._channels_first(obs.reshape(prod(lead), *shape)), self.spec)
        if next(self.body.parameters()).is_contiguous(memory_format=torch.channels_last):
            images = images.contiguous(memory_format=torch.channels_last)  # once, for both passes
        return self.full(self.body(images)).reshape(*lead, self.features)


def _plain(layers: list[tuple[int, int, int]], norm: str | None) -> Body:
    """Convolutions (channels, kernel, stride), each with norm and relu."""

    def body(channels: int) -> list[nn.Module]:
        modules: list[nn.Module] = []
        for out, kernel, stride in layers:
            modules += [nn.Conv2d(channels, out, kernel, stride), *_norm(norm, out), nn.ReLU()]
            channels = out
        return modules

    return body


class MinAtarCNN(Convolutions):
    """16 channels of 3 × 3, then 128 units: MinAtar's network, whose images (10, 10, C) are (H, W, C) even where
    C = 10. Young & Tian (2019)."""

    def __init__(
        self,
        spec: Spec,
        hidden: int | None = 128,
        norm: str | None = None,
        layout: str = "auto",
        layer: Callable[[int, int], nn.Module] = Linear,
    ):
        body = _plain([(16, 3, 1)], norm)
        super().__init__("minatar_cnn", spec, body, hidden, norm, layout, layer, cube="hwc")


class NatureCNN(Convolutions):
    """32 channels of 8 × 8 by 4, 64 of 4 × 4 by 2, 64 of 3 × 3, then 512 units. Mnih et al. (2015), §Methods."""

    def __init__(
        self,
        spec: Spec,
        hidden: int | None = 512,
        norm: str | None = None,
        layout: str = "auto",
        layer: Callable[[int, int], nn.Module] = Linear,
    ):
        body = _plain([(32, 8, 4), (64, 4, 2), (64, 3, 1)], norm)
        super().__init__("nature_cnn", spec, body, hidden, norm, layout, layer)


class SmallCNN(Convolutions):
    """32 channels of 5 × 5 by 5, 64 of 5 × 5 by 5: Data-Efficient Rainbow's. van Hasselt et al. (2019)."""

    def __init__(
        self,
        spec: Spec,
        hidden: int | None = None,
        norm: str | None = None,
        layout: str = "auto",
        layer: Callable[[int, int], nn.Module] = Linear,
    ):
        body = _plain([(32, 5, 5), (64, 5, 5)], norm)
        super().__init__("small_cnn", spec, body, hidden, norm, layout, layer)


class Residual(nn.Module):
    """x + conv(relu(norm(conv(relu(norm(x)))))), 3 × 3. He et al. (2016), as in Espeholt et al. (2018), fig. 3."""

    def __init__(self, channels: int, spectral: bool, norm: str | None):
        super().__init__()
        modules: list[nn.Module] = []
        for _ in range(2):
            conv = nn.Conv2d(channels, channels, 3, padding=1)
            modules += [*_norm(norm, channels), nn.ReLU(), spectral_norm(conv) if spectral else conv]
        self.body = nn.Sequential(*modules)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class ImpalaCNN(Convolutions):
    """Three stages of 16, 32, 32 (× `width`) channels, each a convolution, a max-pool by 2 and two residual blocks.

    Espeholt et al. (2018), fig. 3. `spectral` norm of the residual convolutions and an adaptive max-pool to
    `pool` × `pool` at the end (null: none) are Beyond the Rainbow's. Clark et al. (2024).
    """

    def __init__(
        self,
        spec: Spec,
        width: int = 1,
        spectral: bool = False,
        pool: int | None = None,
        hidden: int | None = 256,
        norm: str | None = None,
        layout: str = "auto",
        layer: Callable[[int, int], nn.Module] = Linear,
    ):
        if width < 1 or (pool is not None and pool < 1):
            raise ValueError(f"torso.width must be ≥ 1 and torso.pool ≥ 1 or null, got {width} and {pool}")

        def body(channels: int) -> list[nn.Module]:
            modules: list[Any] = []
            for out in (16 * width, 32 * width, 32 * width):
                blocks = (Residual(out, spectral, norm) for _ in range(2))
                modules += [nn.Conv2d(channels, out, 3, padding=1), nn.MaxPool2d(3, 2, padding=1), *blocks]
                channels = out
            modules += [*_norm(norm, channels), nn.ReLU()]
            return [*modules, nn.AdaptiveMaxPool2d(pool)] if pool else modules

        super().__init__("impala_cnn", spec, body, hidden, norm, layout, layer)
