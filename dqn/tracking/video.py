"""Recordings of an agent: what it saw, with the value of each action beside it, as an mp4 and a GIF."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dqn.errors import UsageError
from dqn.types import ILLEGAL

HEIGHT, PANEL, BLOCK = 400, 240, 16  # of the picture; of what stands beside it; what mp4's width is a multiple of
INK, SOFT, EDGE, PAPER = (27, 36, 48), (120, 128, 140), (214, 218, 224), (255, 255, 255)
BEST, OTHER = (213, 94, 0), (143, 182, 214)  # of the bars
ROWS, TALLEST = 12, 34  # actions that are shown, at most; pixels of a row, at most
GIF_FRAMES, GIF_SCALE, COLOURS = 240, 0.6, 96  # more frames are thinned out, evenly; ours


@contextmanager
def needed() -> Iterator[None]:
    """What is imported inside belongs to the extra `video`. Errors: UsageError where it is missing."""
    try:
        yield
    except ImportError as error:
        raise UsageError("Recordings need imageio and pillow: pip install 'dqn-family[video]'.") from error


class Canvas:
    """Puts a frame beside the values of the actions in it: `names` are those of the actions [A].

    The bar of an action says how far its value lies below that of the best one, on the scale of the widest difference
    so far. The best one is marked by its colour, and the one that was taken by a triangle.
    """

    def __init__(self, names: Sequence[str]):
        with needed():
            from PIL import ImageFont

            self.large, self.small = ImageFont.load_default(17), ImageFont.load_default(13)
        self.names, self.widest = [name[:14] for name in names], 1e-9
        self.label = 22 + max(round(self.small.getlength(name)) for name in self.names)  # pixels of the widest

    def __call__(self, frame: np.ndarray, said: Sequence[str], q: np.ndarray | None, action: int | None) -> np.ndarray:
        """A frame [H, W, 3] with lines of text, the values [A] and the action; both None where the episode is over."""
        from PIL import Image, ImageDraw

        shown = _to_height(Image.fromarray(np.ascontiguousarray(frame)))
        width = -(-(shown.width + PANEL) // BLOCK) * BLOCK
        whole = Image.new("RGB", (width, HEIGHT), PAPER)
        whole.paste(shown, (0, 0))
        draw, left = ImageDraw.Draw(whole), shown.width + 18
        draw.line((shown.width, 0, shown.width, HEIGHT), fill=EDGE, width=2)
        for row, line in enumerate(said):
            draw.text((left, 14 + 22 * row), line, INK if row == len(said) - 1 else SOFT, self.large)
        if q is not None and action is not None:
            self._bars(draw, q, action, left, width - 14, 14 + 22 * len(said) + 14)
        return np.asarray(whole)

    def _bars(self, draw: Any, q: np.ndarray, action: int, left: int, right: int, top: int) -> None:
        legal = q > ILLEGAL / 2
        best = float(q[legal].max())
        self.widest = max(self.widest, best - float(q[legal].min()))
        draw.text((left, top), "Q of each action", SOFT, self.small)
        top += 22
        order = np.arange(len(q)) if len(q) <= ROWS else np.sort(np.argsort(-q)[:ROWS])
        tall = min(TALLEST, (HEIGHT - top - 8) // len(order))
        start, most = left + self.label, right - left - self.label - 62
        for row, one in enumerate(order):
            y = top + tall * row
            greedy = bool(legal[one] and q[one] == best)
            middle = y + tall / 2 - 9
            draw.text((left + 12, middle), self.names[one], INK if greedy else SOFT, self.small)
            if one == action:
                draw.polygon((left, middle + 3, left + 8, middle + 8, left, middle + 13), fill=INK)
            if not legal[one]:
                draw.text((start, middle), "illegal", SOFT, self.small)
                continue
            length = 3 + most * max(0.0, 1 - (best - float(q[one])) / self.widest)
            draw.rectangle((start, y + 4, start + length, y + tall - 5), fill=BEST if greedy else OTHER)
            draw.text((right, middle), f"{q[one]:.4g}", INK if greedy else SOFT, self.small, anchor="ra")


def _to_height(image: Any) -> Any:
    """The image at the canvas's height: small ones in whole pixels, so that they stay sharp; wide ones with edges."""
    from PIL import Image, ImageOps

    if image.height < HEIGHT / 2:
        factor = max(1, min(HEIGHT // image.height, 900 // image.width))
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    fits = 0.75 * HEIGHT <= image.height <= HEIGHT and image.width <= 900
    fitting = image if fits else ImageOps.contain(image, (900, HEIGHT))
    return ImageOps.pad(fitting, (fitting.width, HEIGHT), color=INK)


class Thinned:
    """Frames of a recording of any length, made smaller, every n-th of them, so that at most `most` are kept."""

    def __init__(self, fps: float, most: int = GIF_FRAMES, scale: float = GIF_SCALE):
        self.fps, self.most, self.scale = fps, most, scale
        self.frames: list[Any] = []  # Pillow's images
        self.every, self.seen = 1, 0

    def add(self, frame: np.ndarray) -> None:
        """Take one frame, where it is its turn."""
        if self.seen % self.every == 0:
            from PIL import Image

            image = Image.fromarray(frame)
            smaller = image.resize([round(side * self.scale) for side in image.size], Image.Resampling.BILINEAR)
            self.frames.append(smaller.quantize(COLOURS, Image.Quantize.FASTOCTREE))  # the best palette takes 30 ms
        self.seen += 1
        if len(self.frames) > self.most:
            self.frames, self.every = self.frames[::2], self.every * 2

    def gif(self) -> bytes:
        """The frames as a GIF that plays as fast as what was recorded, again and again."""
        file, (first, *rest) = io.BytesIO(), self.frames
        still = round(1000 * self.every / self.fps)
        first.save(file, format="GIF", save_all=True, append_images=rest, duration=still, loop=0)
        return file.getvalue()

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        width, height = self.frames[0].size
        return height, width


class Mp4:
    """An mp4 that is written frame by frame, all in the size of the first."""

    def __init__(self, path: Path, fps: float):
        with needed():
            import imageio.v2 as imageio
            import imageio_ffmpeg  # noqa: F401  # the program that encodes
        path.unlink(missing_ok=True)  # no link is followed
        how: Any = {"format": "FFMPEG", "codec": "libx264", "quality": 7, "macro_block_size": BLOCK}
        self.writer: Any = imageio.get_writer(path, fps=fps, **how)
        self.shape: tuple[int, ...] | None = None

    def add(self, frame: np.ndarray) -> None:
        """Write one frame."""
        self.shape = frame.shape if self.shape is None else self.shape
        if frame.shape != self.shape:  # an environment may change its size
            whole = np.full(self.shape, 255, np.uint8)
            height, width, _ = self.shape
            whole[: frame.shape[0], : frame.shape[1]] = frame[:height, :width]
            frame = whole
        self.writer.append_data(frame)

    def close(self) -> None:
        self.writer.close()
