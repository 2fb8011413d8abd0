"""Which torso fits what is observed: `torso=auto`."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from dqn.networks.convs import image_sides
from dqn.networks.torsos import DictTorso
from dqn.types import Spec

LARGE = 36  # pixels a side: the strides of Mnih et al. (2015) leave one position of the last kernel
SMALL = 5  # pixels a side: below, a kernel of 3 × 3 sees nearly everything, and an MLP does as well; ours


def fitting(spec: Spec) -> tuple[str, str]:
    """The kind of torso that fits, `vector`, `image`, `small_image` or `dict`, and why in words.

    Images are arrays with three axes, of which one holds the channels, whatever their dtype; bytes with four axes are
    frames of a stack, and large bytes with two axes are grey. All else is a vector, as are numbers of states.
    """
    if spec.parts:
        images = [name for name, part in spec.parts if fitting(part)[0] != "vector"]
        return ("dict", f"a Dict with images ({', '.join(images)})") if images else ("vector", "a Dict without images")
    if spec.states:
        return "vector", "numbered states"
    shape, bytes_ = spec.obs_shape, spec.obs_dtype.kind in "ub"
    seen = f"{spec.obs_dtype} {shape}"
    sides = image_sides(shape) if len(shape) in ((2, 3, 4) if bytes_ else (3,)) else (0, 0)
    what = f"{'a stack of images' if len(shape) == 4 else 'an image'} of {sides[0]} × {sides[1]}"
    if min(sides) >= LARGE:
        return "image", f"{seen} is {what}"
    if min(sides) >= SMALL and len(shape) > 2:
        return "small_image", f"{seen} is {what}, below {LARGE} a side"
    return "vector", f"{seen} is no image"


def automatic(
    spec: Spec, vector: Callable[..., nn.Module], image: Callable[..., nn.Module], small_image: Callable[..., nn.Module]
) -> Any:
    """The torso that fits, made of one of these; for a Dict with images one for each entry."""
    choice, _ = fitting(spec)
    if choice == "dict":
        each = partial(automatic, vector=vector, image=image, small_image=small_image)
        return DictTorso(spec, each, each)
    return {"vector": vector, "image": image, "small_image": small_image}[choice](spec)
