"""A preview as one picture: LR, bicubic, SR and trust side by side, with labels and a scale bar."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from emsr_fast.pictures.sheet import grey_window, magnified
from emsr_fast.preview.job import Preview

_SMALLEST_PANEL_PX = 512
_MARGIN_PX, _GAP_PX = 24, 12
_FONT_PX, _SMALL_PX = 24, 18
_HEAD_PX, _TITLE_PX, _FOOT_PX = 56, 40, 46
_PAPER, _INK, _FAINT = (255, 255, 255), (20, 20, 20), (110, 110, 110)
_FRAME = (0, 200, 255)
_GREY_PANELS = 3  # LR, bicubic, SR
_DETAIL = 4  # times larger than the region above it
_LEAST_FOR_DETAIL = 64  # LR px: smaller regions show their pixels as they are
_TRUST_PERCENTILE = 99.5
_LARGEST_BAR = 0.3  # of a panel's width
_MICROMETRE_NM = 1000
# from trust to doubt: dark to bright, and as readable in grey
_COLOURS = np.array(
    [
        [0, 0, 4],
        [40, 17, 89],
        [101, 26, 128],
        [163, 48, 126],
        [221, 73, 105],
        [251, 136, 97],
        [254, 201, 141],
        [252, 253, 191],
    ]
)


@dataclass(frozen=True)
class _Panel:
    """One image with the text above and below it."""

    title: str
    note: str
    pixels: np.ndarray  # (h, w, 3) uint8; a whole factor smaller than the others, or as large


def draw_preview(preview: Preview) -> Image.Image:
    """Return the picture: LR, bicubic and SR in one grey scale, and the map of trust in colours, if there is one.

    Below, the middle of the region is shown larger, so that single pixels can be seen.
    """
    height, width = preview.high.shape
    zoom = max(1, math.ceil(_SMALLEST_PANEL_PX / max(height, width)))
    panels = _grey_panels(preview)
    worst = 0.0
    if preview.trust is not None:
        worst = float(np.percentile(preview.trust, _TRUST_PERCENTILE)) or 1.0
        title = "expected error" if preview.trust_name == "error" else preview.trust_name
        panels.append(_Panel(f"trust: {title}", "", _coloured(preview.trust / worst)))
    step = width * zoom + _GAP_PX
    top = _HEAD_PX + _TITLE_PX
    detail = _middle_part(preview.low.shape) if min(preview.low.shape) >= _LEAST_FOR_DETAIL else None
    below = top + height * zoom + (_GAP_PX + height * zoom if detail else 0)
    sheet = Image.new("RGB", (2 * _MARGIN_PX + step * len(panels) - _GAP_PX, below + _FOOT_PX), _PAPER)
    pen = ImageDraw.Draw(sheet)
    font, small = ImageFont.load_default(_FONT_PX), ImageFont.load_default(_SMALL_PX)
    pen.text((_MARGIN_PX, 16), _fitting(pen, _heading(preview), small, sheet.width - 2 * _MARGIN_PX), _FAINT, small)
    bar_nm = (
        preview.voxel_size_nm[2] and preview.voxel_size_nm[2] / preview.scale / zoom
    )  # nm of a pixel of the picture
    for number, panel in enumerate(panels):
        left = _MARGIN_PX + number * step
        is_grey = number < _GREY_PANELS
        pen.text((left, _HEAD_PX), _fitting(pen, panel.title, font, width * zoom), _INK, font)
        pen.text((left, below + 10), _fitting(pen, panel.note, small, width * zoom), _FAINT, small)
        _paste(sheet, pen, panel, (left, top), (height * zoom, width * zoom), bar_nm if is_grey else None)
        if detail:
            factor = panel.pixels.shape[0] // preview.low.shape[0]
            rows, cols = (slice(part.start * factor, part.stop * factor) for part in detail)
            part = replace(panel, pixels=panel.pixels[rows, cols])
            sides = [(part.stop - part.start) * preview.scale * zoom * _DETAIL for part in detail]
            place = left, top + height * zoom + _GAP_PX
            _paste(sheet, pen, part, place, (sides[0], sides[1]), bar_nm / _DETAIL if bar_nm and is_grey else None)
            (y0, y1), (x0, x1) = ([end * preview.scale * zoom for end in (p.start, p.stop)] for p in detail)
            pen.rectangle((left + x0, top + y0, left + x1 - 1, top + y1 - 1), outline=_FRAME, width=2)
    if preview.trust is not None:
        _colour_bar(sheet, pen, (_MARGIN_PX + _GREY_PANELS * step, below + 12), width * zoom, worst, small)
    return sheet


def _grey_panels(preview: Preview) -> list[_Panel]:
    images = [preview.low, preview.bicubic, preview.high]
    low, high = grey_window(images)
    greys = [np.clip((image.astype(np.float64) - low) / (high - low), 0, 1) for image in images]
    pixels = [np.rint(grey * 255).astype(np.uint8)[..., None].repeat(3, axis=2) for grey in greys]
    return [
        _Panel(f"LR{_size(preview, 1)}", "pixels repeated", pixels[0]),
        _Panel("bicubic", f"display range {_number(low)} to {_number(high)}", pixels[1]),
        _Panel(f"SR, {preview.model}{_size(preview, preview.scale)}", f"x{preview.scale} in y and x", pixels[2]),
    ]


def _middle_part(shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Return the middle quarter of each side, in LR px."""
    rows, cols = (slice((side - side // _DETAIL) // 2, (side + side // _DETAIL) // 2) for side in shape)
    return rows, cols


def _paste(
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    panel: _Panel,
    corner: tuple[int, int],
    sides: tuple[int, int],
    nm_per_px: float | None,
) -> None:
    """Put ``panel`` at ``corner`` (x, y), repeated to ``sides`` (y, x), with a scale bar where a size is known."""
    sheet.paste(Image.fromarray(magnified(panel.pixels, *sides, panel.title)), corner)
    if nm_per_px is not None:
        _scale_bar(pen, (corner[0], corner[1] + sides[0]), sides[1], nm_per_px, ImageFont.load_default(_SMALL_PX))


def _heading(preview: Preview) -> str:
    (top, bottom), (left, right) = preview.rows, preview.cols
    said = [f"{preview.source}, slice {preview.z}, rows {top}:{bottom}, columns {left}:{right}"]
    if preview.voxel_size_nm[2] is None:
        said.append("pixel size unknown, so no scale bar")
    if preview.trust is None:
        said.append(f"trust left out: {preview.trust_name}")
    return "; ".join(said)


def _number(value: float) -> str:
    """Return ``value`` with three digits, or all before the point."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _size(preview: Preview, scale: int) -> str:
    sides = [None if side is None else f"{side / scale:.3g}" for side in preview.voxel_size_nm[1:]]
    if None in sides:
        return ""
    return f", {sides[0]} nm" if sides[0] == sides[1] else f", {sides[0]} x {sides[1]} nm"


def _fitting(
    pen: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float
) -> str:
    """Return the beginning of ``text`` that fits into ``width`` px."""
    if pen.textlength(text, font) <= width:
        return text
    while text and pen.textlength(f"{text}...", font) > width:
        text = text[:-1]
    return f"{text}..."


def bar_length(width_nm: float) -> float:
    """Return the length of a scale bar in nm for an image of ``width_nm``: 1, 2 or 5 times a power of ten."""
    most = width_nm * _LARGEST_BAR
    power = 10.0 ** math.floor(math.log10(most))
    return max(digit * power for digit in (1, 2, 5) if digit * power <= most)


def _scale_bar(
    pen: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    width: int,
    nm_per_px: float,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """Draw a bar with its length above the lower left ``corner`` of a panel of ``width`` px."""
    length = bar_length(width * nm_per_px)
    text = f"{length:g} nm" if length < _MICROMETRE_NM else f"{length / _MICROMETRE_NM:g} µm"
    left, bottom = corner[0] + 16, corner[1] - 16
    # on a plate of its own: bars get lost in an image
    plate = max(round(length / nm_per_px), round(pen.textlength(text, font)))
    pen.rectangle((left - 8, bottom - 38, left + plate + 8, bottom + 8), fill=(0, 0, 0))
    pen.rectangle((left, bottom - 6, left + round(length / nm_per_px) - 1, bottom - 1), fill=_PAPER)
    pen.text((left, bottom - 34), text, _PAPER, font)


def _colour_bar(
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    place: tuple[int, int],
    width: int,
    worst: float,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """Draw what the colours mean."""
    left, top = place
    first, last = "0", f"{_number(worst)} grey values"
    before, after = (math.ceil(pen.textlength(text, font)) + 10 for text in (first, last))
    bar = max(width - before - after, 1)
    pen.text((left, top - 2), first, _FAINT, font)
    sheet.paste(Image.fromarray(_coloured(np.tile(np.linspace(0, 1, bar), (18, 1)))), (left + before, top))
    pen.text((left + before + bar + 10, top - 2), last, _FAINT, font)


def _coloured(values: np.ndarray) -> np.ndarray:
    """Return (H, W) from 0 to 1 as (H, W, 3) colours, uint8."""
    places = np.linspace(0, 1, len(_COLOURS))
    channels = [np.interp(values, places, _COLOURS[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=2)).astype(np.uint8)
