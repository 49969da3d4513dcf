"""Reads image files: one PNG or JPEG, or a folder of files with a slice each, also TIFF, DM3, DM4, SER and Jeiss."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from emsr_fast.errors import UsageError, VolumeError
from emsr_fast.io.axes import Asked, no_channels
from emsr_fast.io.formats import DM_MAGIC, JEISS_MAGIC, SER_MAGIC, TIFF_MAGIC, begins_with
from emsr_fast.io.readers import dm, jeiss, ser
from emsr_fast.io.readers.parts.files import DamagedError, check_readable
from emsr_fast.io.readers.parts.greys import grey_ramp, looked_up, one_channel, ramp_note
from emsr_fast.io.readers.parts.image_claims import check_claim, check_png_pixels
from emsr_fast.io.readers.parts.image_names import image_files
from emsr_fast.io.readers.tiff.ome_set import set_of
from emsr_fast.io.readers.tiff.source import TiffSource
from emsr_fast.io.volume import SourceVolume, VolumeInfo, as_pixels, check_pixels, pixel_dtype
from emsr_fast.io.voxels import VoxelSize, described, from_density
from emsr_fast.wording import listed

_NAMED = 3  # slices in a note
_DTYPES = {"1": np.bool_, "L": np.uint8, "I;16": np.uint16, "I;16B": np.uint16, "I;16L": np.uint16}
# read as grey where red, green and blue are equal; samples of a pixel
_CHANNELS = {"LA": 2, "RGB": 3, "RGBA": 4}
_REFUSED_MODES = {
    "PA": "has a palette with alpha; convert it to grey first",
    "La": "has an alpha channel; save it as grey without alpha",
    "I": "has 32-bit integer pixels; save it with 8 or 16 bits",
    "F": "has float pixels in a format that is read as integers; save it as TIFF",
}


@dataclass(frozen=True)
class _Header:
    """What is known of a file before its pixels are decoded."""

    format: str
    shape: tuple[int, int]  # Y, X
    dtype: np.dtype
    voxel_size_nm: VoxelSize
    voxel_size_from: str
    notes: tuple[str, ...]
    instrument: str | None = None
    channels: str = ""  # "RGB" and the like, where only the pixels tell grey from colour


def open_source(path: Path, key: str | None, asked: Asked) -> SourceVolume:
    """Return the image, or the folder's images in natural order, as a stack."""
    if path.is_dir() and (whole := _ome_set(path, key, asked)):
        return whole
    if key is not None and not _may_have_several(path):
        raise VolumeError(f"{path} is images in files, one slice each: leave `key={key}` out, or name one of the files")
    if asked.channel is not None and not _may_have_channels(path):
        raise no_channels(asked.channel, path, "images in files, one slice each")
    if asked.axes not in (None, "ZYX", "YX"):
        raise UsageError(f"`axes` {asked.axes!r} do not fit {path}: images in files are slices, ZYX; leave `axes` out")
    return ImagesSource(path, keep_data_bar=asked.keep_data_bar, channel=asked.channel, key=key)


def _may_have_several(path: Path) -> bool:
    """Return whether each slice may be one of several images in its file."""
    return path.is_dir() and begins_with(image_files(path)[0][0], (*TIFF_MAGIC, *DM_MAGIC))


def _may_have_channels(path: Path) -> bool:
    """Return whether the slices are Jeiss files."""
    return path.is_dir() and begins_with(image_files(path)[0][0], (JEISS_MAGIC,))


def _ome_set(folder: Path, key: str | None, asked: Asked) -> SourceVolume | None:
    """Return the set of OME-TIFFs that the images of ``folder`` are; None if they are no set, or not all of one."""
    files, notes = image_files(folder)
    first = next((file for file in files if begins_with(file, TIFF_MAGIC)), None)
    if first is None or not (others := {name.lower() for name in set_of(first)}):
        return None
    here = {file.name.lower() for file in files} - {first.name.lower()}
    if not here or not here <= others:
        return None
    source = TiffSource(first, key, asked)
    format = f"folder of {len(files)} files, one set of OME-TIFFs"
    notes = [note for note in notes if "skipped" in note]
    source.info = replace(source.info, path=folder, format=format, notes=(*notes, *source.info.notes))
    return source


class ImagesSource(SourceVolume):
    """One image file for each slice, all of one shape and dtype; the last decoded one is kept."""

    def __init__(
        self, path: Path, *, keep_data_bar: bool = False, channel: int | None = None, key: str | None = None
    ) -> None:
        """Open the images at ``path``.

        Args:
            path: a file, or a folder with a file for each slice.
            keep_data_bar: as for ``open_source``.
            channel: of Jeiss files, as for ``open_source``.
            key: which image of each TIFF or DigitalMicrograph file; None if each has one.
        """
        self._asked, self._key = Asked(keep_data_bar=keep_data_bar, channel=channel), key
        self._kept: tuple[int, np.ndarray] | None = None
        self._files, notes = image_files(path) if path.is_dir() else ([path], [])
        found, self._damaged = _read_headers(self._files, self._asked, key)
        if not found:
            raise self._damaged[0]
        (first_z, first), headers = next(iter(found.items())), list(found.values())
        for z, header in found.items():
            if (header.shape, header.dtype) != (first.shape, first.dtype):
                raise VolumeError(
                    f"{self._files[z]} is {_size(header)}, but {self._files[first_z].name} is {_size(first)}; "
                    "slices of a stack must agree: move it elsewhere or crop it"
                )
        # colours show early: in the first file, and in those of another kind; the others are looked at when read
        for z in (z for z, one in found.items() if one.channels and (z == first_z or one.channels != first.channels)):
            self._kept = (z, _decode(self._files[z], self._asked, self._key))
        if self._damaged:
            notes.append(_described(self._damaged, len(self._files)))
        shape = (len(self._files), *first.shape)
        voxel_size_nm, stated = first.voxel_size_nm, first.voxel_size_from
        if any(header.voxel_size_nm != voxel_size_nm for header in headers):
            notes.append("the files state different pixel sizes: taken as unknown")
            voxel_size_nm, stated = (None, None, None), "the files disagree"
        # a one-page file knows nothing of the distance to the next
        voxel_size_nm = (None, *voxel_size_nm[1:])
        self.info = VolumeInfo(
            path=path,
            format=f"folder of {len(self._files)} images" if path.is_dir() else first.format,
            shape=shape,
            dtype=first.dtype,
            axes="one file per slice, YX" if path.is_dir() else "YX",
            chunks=(1, *first.shape),
            voxel_size_nm=voxel_size_nm,
            voxel_size_from=stated if described(voxel_size_nm) != "unknown" else "not stated in the file",
            notes=tuple(dict.fromkeys((*notes, *(note for header in headers for note in header.notes)))),
            key=key,
            damaged={z: str(error) for z, error in self._damaged.items()},
            instrument=listed(list(dict.fromkeys(one.instrument for one in headers if one.instrument)), 2) or None,
        )

    def read(self, z: int, rows: slice, cols: slice) -> np.ndarray:
        """Return pixels of slice ``z``, (rows, cols)."""
        if z in self._damaged:
            raise DamagedError(str(self._damaged[z]))
        if self._kept is None or self._kept[0] != z:
            pixels = _decode(self._files[z], self._asked, self._key)
            if pixels.shape != self.info.shape[1:] or pixels.dtype != self.info.dtype:
                raise VolumeError(f"{self._files[z]} changed while it was read; start again when it no longer changes")
            self._kept = (z, pixels)
        return self._kept[1][rows, cols]

    def limit_memory(self, most: int) -> int:
        """Return how many bytes it may hold at its peak: an image is decoded whole, while the one before is kept."""
        return 3 * self.shape[1] * self.shape[2] * self.dtype.itemsize

    def close(self) -> None:
        """Forget the kept slice; files are open only while they are decoded."""
        self._kept = None


def _size(header: _Header) -> str:
    return f"{header.shape[0]}x{header.shape[1]} {header.dtype.name}"


def _read_headers(
    files: Sequence[Path], asked: Asked, key: str | None
) -> tuple[dict[int, _Header], dict[int, DamagedError]]:
    """Return the headers of the files, and the reasons why some cannot be read, both by slice."""
    headers: dict[int, _Header] = {}
    damaged: dict[int, DamagedError] = {}
    for z, file in enumerate(files):
        try:
            headers[z] = _read_header(file, asked, key)
        except DamagedError as error:
            damaged[z] = error
    return headers, damaged


def _described(damaged: Mapping[int, DamagedError], count: int) -> str:
    named = listed([f"slice {z}: {error}" for z, error in damaged.items()], _NAMED, "; ")
    return f"{len(damaged)} of {count} slices cannot be read: {named}"


def _as_stack(file: Path, asked: Asked, key: str | None) -> SourceVolume | None:
    """Return a file of a format that may hold more than a slice, opened for reading; None if it is PNG or JPEG."""
    if begins_with(file, TIFF_MAGIC):
        return TiffSource(file, key, asked, alone=True)
    if begins_with(file, DM_MAGIC):
        return dm.open_source(file, key, Asked())
    if begins_with(file, (SER_MAGIC,)):
        return ser.open_source(file, None, Asked())
    if begins_with(file, (JEISS_MAGIC,)):
        return jeiss.open_source(file, None, Asked(channel=asked.channel))
    return None


def _read_header(file: Path, asked: Asked, key: str | None) -> _Header:
    check_readable(file)
    if stack := _as_stack(file, asked, key):
        with stack as source:
            info = source.info
        if info.shape[0] != 1:
            raise VolumeError(f"{file} holds {info.shape[0]} slices, a folder needs one per file; give the file itself")
        size, origin = info.voxel_size_nm, info.voxel_size_from
        return _Header(info.format, info.shape[1:], info.dtype, size, origin, info.notes, info.instrument)
    with _opened(file) as image:
        kind, shape = str(image.format), (image.height, image.width)
        check_claim(file, kind, shape)
        dtype, own_notes = _grey(image, file)
        notes = (*own_notes, *check_pixels(shape, dtype, file))
        channels = image.mode if image.mode in _CHANNELS else ""
        dpi = image.info.get("dpi", (0, 0))
    (x, doubt), (y, _) = from_density(float(dpi[0]), "inch"), from_density(float(dpi[1]), "inch")
    notes = (*notes, doubt) if doubt else notes
    size = (None, y, x)
    return _Header(kind, shape, pixel_dtype(dtype), size, "image resolution", notes, channels=channels)


def _grey(image: Image.Image, file: Path) -> tuple[np.dtype, tuple[str, ...]]:
    """Return the dtype of the grey values, and notes; raise VolumeError if the image is known to be no grey one."""
    if image.mode in _DTYPES:
        return np.dtype(_DTYPES[image.mode]), ()
    if image.mode == "P":
        return np.dtype(np.uint8), (ramp_note(_ramp(image, file)[1]),)
    if image.mode in _CHANNELS:
        # Pillow would halve the bits of 16
        if any(";16" in str(tile) for tile in getattr(image, "tile", ())):
            raise VolumeError(f"{file} is a colour image of 16 bits; convert it to grey first")
        return np.dtype(np.uint8), (f"stored as {image.mode} with equal channels: read as grey",)
    reason = _REFUSED_MODES.get(image.mode, f"is a colour image ({image.mode}); convert it to grey first")
    raise VolumeError(f"{file} {reason}")


def _ramp(image: Image.Image, file: Path) -> tuple[np.ndarray, int]:
    palette = np.array(image.getpalette("RGB") or (), np.uint8).reshape(-1, 3).T
    ramp = grey_ramp(palette)
    if ramp is None:
        raise VolumeError(f"{file} has a colour palette; convert it to grey first")
    return ramp


def _decode(file: Path, asked: Asked, key: str | None) -> np.ndarray:
    check_readable(file)
    if stack := _as_stack(file, asked, key):
        with stack as source:
            return source.read(0, slice(None), slice(None))
    with _opened(file) as image:
        if image.format == "PNG":
            check_png_pixels(file)
        dtype, _ = _grey(image, file)
        if image.mode in _CHANNELS:
            return one_channel(np.asarray(image), str(file))
        if image.mode == "P":
            pixels = looked_up(_ramp(image, file)[0], np.asarray(image))
            # transparent entries: one alpha for all pixels, or refused
            return one_channel(np.dstack((pixels, np.asarray(image.convert("RGBA").getchannel("A")))), str(file))
        return as_pixels(np.asarray(image).astype(dtype, copy=False))


@contextmanager
def _opened(file: Path) -> Iterator[Image.Image]:
    """Open an image with Pillow; an error, also while decoding in the block, names the file."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # a slice of 20,000 x 20,000 is no attack
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file, formats=("PNG", "JPEG")) as image:
                yield image
    except (VolumeError, MemoryError):
        raise
    except Exception as error:
        raise DamagedError(
            f"{file} cannot be decoded as PNG or JPEG: {error or type(error).__name__}; copy or export it again"
        ) from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit
