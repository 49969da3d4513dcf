"""Images side by side in one PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_GAP_PX = 12
_TITLE_PX = 34
_FONT_PX = 18
_SMALLEST_PANEL_PX = 384
_PERCENTILES = (0.1, 99.9)
_PAPER, _INK = 255, 0


def side_by_side(panels: Sequence[tuple[str, np.ndarray]], path: str | Path, *, notes: Sequence[str] = ()) -> None:
    """Write ``panels`` as one grey PNG: a row of images under their titles, all in the same grey scale.

    Args:
        panels: titles and images, (H, W) of any real dtype; the first one's size is that of all panels, and images
            smaller by a whole factor are magnified to it by repeating pixels. Small panels are magnified together.
        path: the PNG; replaced if it exists.
        notes: lines of text below the images.

    Raises:
        ValueError: no panel, or one whose size does not divide the largest.
    """
    if not panels:
        raise ValueError("there are no panels to put side by side")
    height = max(image.shape[0] for _, image in panels)
    width = max(image.shape[1] for _, image in panels)
    zoom = max(1, -(-_SMALLEST_PANEL_PX // max(height, width)))
    low, high = grey_window([image for _, image in panels])
    step = width * zoom + _GAP_PX
    sheet = Image.new(
        "L", (_GAP_PX + step * len(panels), _TITLE_PX + height * zoom + _GAP_PX + _TITLE_PX * len(notes)), _PAPER
    )
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT_PX)
    for number, (title, image) in enumerate(panels):
        left = _GAP_PX + number * step
        pen.text((left, (_TITLE_PX - _FONT_PX) // 2), title, fill=_INK, font=font)
        grey = np.clip((image.astype(np.float64) - low) / (high - low), 0, 1)
        pixels = magnified(np.rint(grey * 255).astype(np.uint8), height * zoom, width * zoom, title)
        sheet.paste(Image.fromarray(pixels), (left, _TITLE_PX))
    for number, note in enumerate(notes):
        pen.text((_GAP_PX, _TITLE_PX * (number + 1) + height * zoom + _GAP_PX), note, fill=_INK, font=font)
    sheet.save(path, format="PNG")


def grey_window(images: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the grey values shown as black and white, the same for all panels so that they can be compared."""
    values = np.concatenate([image.astype(np.float64).ravel() for image in images])
    low, high = (float(value) for value in np.percentile(values, _PERCENTILES))
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def magnified(pixels: np.ndarray, height: int, width: int, title: str) -> np.ndarray:
    """Return ``pixels``, (h, w) or (h, w, channels), repeated to (height, width); ``title`` is for the message."""
    if height % pixels.shape[0] or width % pixels.shape[1]:
        raise ValueError(f"panel {title!r} is {pixels.shape}, which does not divide {(height, width)}")
    return pixels.repeat(height // pixels.shape[0], axis=0).repeat(width // pixels.shape[1], axis=1)
