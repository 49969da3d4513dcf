"""How a TIFF page stores grey: as it is, with white as zero, by a palette, or as equal channels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from emsr_fast.errors import VolumeError
from emsr_fast.io.readers.parts.greys import grey_ramp, looked_up, one_channel, ramp_note
from emsr_fast.io.readers.tiff.pages import Page, keyframe_of
from emsr_fast.io.volume import as_pixels

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE = 0, 1, 2, 3
_COLOURS = {2: "RGB", 3: "a colour palette", 5: "CMYK", 6: "YCbCr colour", 8: "L*a*b* colour"}
_ALPHA = (1, 2)  # values of ExtraSamples


def samples_of(page: tifffile.TiffPage) -> int:
    """Return how many samples of a pixel may turn out to be one grey; 0 if they cannot."""
    samples, photometric = int(page.samplesperpixel), int(page.photometric)
    extra = tuple(int(kind) for kind in page.extrasamples)
    if samples == 1:
        return 1 if photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _PALETTE) else 0
    if photometric == _RGB and samples in (3, 4):
        return samples
    return 2 if photometric == _BLACK_IS_ZERO and samples == 2 and extra[:1] and extra[0] in _ALPHA else 0


@dataclass(frozen=True)
class Greys:
    """Turns what pages hold into grey values."""

    dtype: np.dtype  # of the grey values
    samples: int = 1  # of each pixel, stored
    inverted: bool = False  # white is stored as zero
    greys: np.ndarray | None = None  # of each palette entry
    notes: tuple[str, ...] = ()

    def of(self, block: np.ndarray, where: str, alpha: int | float | None = None) -> np.ndarray:
        """Return the grey values of a decoded block; ``where`` and ``alpha`` as for ``one_channel``."""
        if self.samples > 1:
            return one_channel(block, where, alpha)
        if self.greys is not None:
            return looked_up(self.greys, block)
        block = as_pixels(block)
        return np.iinfo(block.dtype).max - block if self.inverted else block


def greys_of(page: tifffile.TiffPage, path: Path) -> Greys:
    """Return how ``page`` stores grey.

    Raises:
        VolumeError: it stores colours, or several voxels deep.
    """
    photometric, samples = int(page.photometric), samples_of(page)
    if not samples:
        what = _COLOURS.get(photometric, f"photometric {photometric}")
        raise VolumeError(f"{path} holds {what}, {page.samplesperpixel} samples per pixel; convert it to grey first")
    if len(page.shape) != (2 if samples == 1 else 3) and min(page.shape) > 0:
        raise VolumeError(f"{path} stores {page.shape} voxels in one page; save it with one page per slice")
    pixels = np.dtype(page.dtype or "V1").newbyteorder("=")
    if samples > 1:
        stored = {2: "grey with alpha", 3: "RGB with equal channels", 4: "RGBA with equal channels"}[samples]
        return Greys(pixels, samples, notes=(f"stored as {stored}: read as grey",))
    if photometric == _PALETTE:
        return _palette(page, pixels, path)
    if photometric == _WHITE_IS_ZERO:
        if pixels.kind not in "ub" or page.bitspersample not in (1, 8, 16):
            raise VolumeError(f"{path} stores white as zero in {pixels.name}; save it with black as zero first")
        note = "stored with white as zero: inverted while reading, so that black is zero"
        return Greys(pixels, inverted=True, notes=(note,))
    return Greys(pixels)


def _palette(page: tifffile.TiffPage, pixels: np.dtype, path: Path) -> Greys:
    colours = page.colormap
    if pixels.kind not in "ub" or colours is None or colours.shape[-1] != 2 ** int(page.bitspersample):
        raise VolumeError(f"{path} has a palette that does not fit its pixels; export it again as grey")
    ramp = grey_ramp(colours)
    if ramp is None:
        raise VolumeError(f"{path} holds a colour palette, 1 samples per pixel; convert it to grey first")
    greys, strays = ramp
    return Greys(greys.dtype, greys=greys, notes=(ramp_note(strays),))


def check_one_palette(pages: list[Page | None], path: Path) -> None:
    """Raise VolumeError if the pages of a stack have different palettes."""
    own = [keyframe_of(page) for page in pages if page is not None]
    first, colours = own[0], own[0].colormap
    assert colours is not None  # of the first it was read
    for page in own[1:]:
        if page is not first and (page.colormap is None or not np.array_equal(page.colormap, colours)):
            raise VolumeError(f"{path} has pages with different palettes; save it as grey")
