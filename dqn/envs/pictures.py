"""What an environment looks like, as a picture [H, W, 3] uint8: what it renders, or a drawing of its observation."""

from collections.abc import Callable
from math import ceil, sqrt
from typing import Any

import numpy as np

# Okabe & Ito (2008), for the channels of images that have no colours of their own, as MinAtar's have none
CHANNELS = np.array([
    (86, 180, 233), (230, 159, 0), (0, 158, 115), (240, 228, 66), (213, 94, 0), (204, 121, 167), (0, 114, 178),
    (255, 255, 255), (148, 103, 189), (140, 86, 75),
], np.uint8)  # fmt: skip
DARK, LIGHT, BLUE, ORANGE, GREY = (18, 22, 30), (246, 247, 249), (0, 114, 178), (213, 94, 0), (120, 128, 140)
SIZE = (600, 400)  # of what is drawn here, W × H
Drawing = Callable[[Any, np.ndarray], None]  # a Pillow ImageDraw and an observation


def rendered(env: Any) -> np.ndarray | None:
    """What a Gymnasium environment renders as an RGB array, None where it renders none."""
    frame = env.render() if env.render_mode == "rgb_array" else None
    if frame is None:
        return None
    frame = np.asarray(frame)
    shown = frame.ndim == 3 and frame.shape[-1] == 3 and frame.dtype == np.uint8
    return frame if shown else None


def picture(obs: np.ndarray, world: str = "", states: int | None = None) -> np.ndarray | None:
    """A drawing of an observation of the environment `world`, or None where nothing can be seen in it.

    Images and boards are shown as they are, their newest frame where they are stacked; channels without colours of
    their own get some. A number of one of so many `states` is a cell of a board. The classic problems are drawn.
    """
    drawing = DRAWINGS.get(world)
    if drawing is not None:
        return _drawn(drawing, obs)
    if states is not None and obs.ndim == 0:
        return _cell(int(obs), states)
    if obs.ndim not in (2, 3) or max(obs.shape) < 4 or min(obs.shape) < 1:
        return None
    return _board(obs) if obs.ndim == 2 else _image(obs)


def _board(obs: np.ndarray) -> np.ndarray:
    """Numbers [H, W] in greys."""
    return np.repeat(_bytes(obs)[..., None], 3, -1)


def _image(obs: np.ndarray) -> np.ndarray:
    """An image [H, W, C] or [C, H, W]; of a stack of frames the newest, which is the last."""
    if obs.shape[0] < min(obs.shape[1:]):
        obs = np.moveaxis(obs, 0, -1)
        stacked = True
    else:
        stacked = obs.shape[-1] == 1 or max(obs.shape[:2]) > 30
    if obs.shape[-1] == 3:
        return _bytes(obs)
    return _board(obs[..., -1]) if stacked else _channels(obs)


def _bytes(obs: np.ndarray) -> np.ndarray:
    """Numbers as bytes: those that are none from 0 to 1, or from their least to their largest."""
    if obs.dtype == np.uint8:
        return obs
    real = obs.astype(float)
    low, high = min(0.0, float(real.min())), max(1.0, float(real.max()))
    return ((real - low) / (high - low) * 255).round().astype(np.uint8)


def _channels(obs: np.ndarray) -> np.ndarray:
    """Channels [H, W, C] in colours, later ones above earlier ones."""
    shown = np.broadcast_to(np.array(DARK, np.uint8), (*obs.shape[:2], 3)).copy()
    for number in range(obs.shape[-1]):
        shown[obs[..., number] > 0] = CHANNELS[number % len(CHANNELS)]
    return shown


def _cell(state: int, states: int) -> np.ndarray:
    """A board of as many cells as there are states, a row of them where they are few, and the one that is taken."""
    wide = states if states <= 12 else ceil(sqrt(states))
    board = np.zeros((ceil(states / wide), wide), int)
    board.ravel()[:states] = 1
    board[divmod(state, wide)] = 2
    size = max(6, min(48, 400 // board.shape[0], 576 // wide))
    shown = np.array([DARK, (222, 226, 232), ORANGE], np.uint8)[board.repeat(size, 0).repeat(size, 1)]
    shown[::size], shown[:, ::size] = DARK, DARK  # lines between them
    return shown


def _drawn(drawing: Drawing, obs: np.ndarray) -> np.ndarray:
    from PIL import Image, ImageDraw  # of the extra `video`

    image = Image.new("RGB", SIZE, LIGHT)
    drawing(ImageDraw.Draw(image), obs)
    return np.asarray(image)


def _cart_pole(draw: Any, obs: np.ndarray) -> None:
    """obs: x in m, and the pole's angle third, in rad; the track is 4.8 m wide."""
    x, angle = SIZE[0] * (0.5 + float(obs[0]) / 5.2), float(obs[2])
    floor = 300
    draw.line((0, floor, SIZE[0], floor), fill=GREY, width=2)
    draw.rectangle((x - 38, floor - 34, x + 38, floor - 4), fill=DARK)
    top = (x + 170 * np.sin(angle), floor - 30 - 170 * np.cos(angle))
    draw.line((x, floor - 30, *top), fill=ORANGE, width=11)
    draw.ellipse((x - 7, floor - 37, x + 7, floor - 23), fill=BLUE)


def _mountain_car(draw: Any, obs: np.ndarray) -> None:
    """obs: the car's place from −1.2 to 0.6; the hill is sin 3x, the flag stands at 0.5."""
    place = np.linspace(-1.2, 0.6, 200)

    def point(x: Any) -> tuple[Any, Any]:
        return (x + 1.2) / 1.8 * SIZE[0], 270 - 105 * np.sin(3 * x)

    draw.line([(float(a), float(b)) for a, b in zip(*point(place), strict=True)], fill=GREY, width=3)
    goal, car = point(0.5), point(float(obs[0]))
    draw.line((*goal, goal[0], goal[1] - 46), fill=DARK, width=2)
    draw.polygon((goal[0], goal[1] - 46, goal[0] + 24, goal[1] - 39, goal[0], goal[1] - 32), fill=ORANGE)
    draw.ellipse((car[0] - 15, car[1] - 32, car[0] + 15, car[1] - 2), fill=BLUE)


def _acrobot(draw: Any, obs: np.ndarray) -> None:
    """obs: cos and sin of both angles, the first from hanging down, the second from the first link; 1 m a link."""
    first = float(np.arctan2(obs[1], obs[0]))
    second = first + float(np.arctan2(obs[3], obs[2]))
    joint, unit = np.array([SIZE[0] / 2, SIZE[1] / 2]), 84
    elbow = joint + unit * np.array([np.sin(first), np.cos(first)])
    end = elbow + unit * np.array([np.sin(second), np.cos(second)])
    draw.line((0, joint[1] - unit, SIZE[0], joint[1] - unit), fill=GREY, width=2)
    for here, there, colour in ((joint, elbow, BLUE), (elbow, end, ORANGE)):
        draw.line((*here, *there), fill=colour, width=11)
    for x, y in (joint, elbow):
        draw.ellipse((x - 8, y - 8, x + 8, y + 8), fill=DARK)


DRAWINGS: dict[str, Drawing] = {"CartPole": _cart_pole, "MountainCar": _mountain_car, "Acrobot": _acrobot}
