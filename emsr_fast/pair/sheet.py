"""The preview of a pair set: where HR lies in LR, and whether both show the same field."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from emsr_fast.io.volume import SourceVolume
from emsr_fast.pair.geometry import Geometry
from emsr_fast.pair.read_slices import read_reduced
from emsr_fast.pair.resample_pair import PairedPart, PairImages
from emsr_fast.pictures.sheet import side_by_side

_PANEL_PX = 144  # LR px of a pair that are shown
_SQUARE_PX = 24  # of the checkerboard
_FIELD_PX, _LEAST_FIELD_PX = 1024, 512  # side of the picture of the whole LR field


def pair_sheet(
    path: Path, lr: SourceVolume, hr: SourceVolume, kept: PairedPart, made: PairImages, shapes: Geometry
) -> None:
    """Write ``path``, a PNG: the pair's middle (LR, HR reduced, both in a checkerboard, HR), the LR field below it."""
    scale = shapes.scale
    rows, cols = (_middle(side) for side in made.lr.shape)
    low = made.lr[rows, cols]
    high = made.hr[rows.start * scale : rows.stop * scale, cols.start * scale : cols.stop * scale]
    height, width = low.shape
    reduced = high.reshape(height, scale, width, scale).mean(axis=(1, 3))
    square = np.indices(low.shape) // _SQUARE_PX
    board = np.where(square.sum(axis=0) % 2, low, reduced)
    side_by_side(
        [
            (f"LR slice {kept.lr_z}", low),
            (f"HR slice {kept.z} reduced, NCC {kept.judged.ncc:.3f}", reduced),
            (f"squares of both, residual {kept.judged.residual_px:.2f} px", board),
            ("HR", high),
        ],
        path,
    )
    with Image.open(path) as image:
        panels = image.copy()
    field = _field(lr, hr, kept)
    sheet = Image.new("L", (max(panels.width, field.width), panels.height + field.height), 255)
    sheet.paste(panels, (0, 0))
    sheet.paste(field, (12, panels.height))
    sheet.save(path, format="PNG")


def _middle(side: int) -> slice:
    start = max(0, (side - _PANEL_PX) // 2)
    return slice(start, min(side, start + _PANEL_PX))


def _field(lr: SourceVolume, hr: SourceVolume, kept: PairedPart) -> Image.Image:
    """Return the LR slice with the outline of the HR field."""
    _, height, width = lr.shape
    factor = max(1, -(-max(height, width) // _FIELD_PX))
    pixels = read_reduced(lr, kept.lr_z, range(height), range(width), factor)
    low, high = np.percentile(pixels, (0.5, 99.5))
    grey = np.clip((pixels - low) / max(high - low, 1e-9), 0, 1)
    zoom = max(1, _LEAST_FIELD_PX // max(pixels.shape))
    picture = Image.fromarray(np.rint(255 * grey).astype(np.uint8).repeat(zoom, axis=0).repeat(zoom, axis=1))
    bottom, right = (side - 0.5 for side in hr.shape[1:])
    corners = np.array([(-0.5, -0.5), (-0.5, right), (bottom, right), (bottom, -0.5), (-0.5, -0.5)])
    places = (kept.pose.in_lr(corners, hr.shape[1:]) - (factor - 1) / 2) / factor
    outline = [(zoom * (float(x) + 0.5) - 0.5, zoom * (float(y) + 0.5) - 0.5) for y, x in places]
    pen = ImageDraw.Draw(picture)
    # white on black: seen on any background
    pen.line(outline, fill=0, width=4)
    pen.line(outline, fill=255, width=2)
    return picture
