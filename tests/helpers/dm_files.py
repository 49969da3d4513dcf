"""Writes DigitalMicrograph files tag by tag, for the tests of their reader."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

KINDS = {"i2": 1, "f4": 2, "u1": 6, "i4": 7, "i1": 9, "u2": 10, "u4": 11, "f8": 12, "b1": 14}
_VALUES = {"i2": 2, "i4": 3, "u2": 4, "u4": 5, "f4": 6, "f8": 7, "b1": 8, "i1": 9, "u1": 10}


class Writer:
    """Encodes tags of one version and byte order; dicts and lists are groups, of named and of unnamed entries."""

    def __init__(self, version: int = 4, order: str = "<") -> None:
        self.version, self.order, self._wide = version, order, "q" if version == 4 else "i"

    def file(self, root: dict) -> bytes:
        body = self._group(root)
        return struct.pack(f">i{self._wide}i", self.version, len(body) + 4, self.order == "<") + body + bytes(8)

    def _group(self, entries: dict | list) -> bytes:
        named = entries.items() if isinstance(entries, dict) else (("", value) for value in entries)
        parts = [self._entry(name, value) for name, value in named]
        return b"\1\0" + self._length(len(parts)) + b"".join(parts)

    def _entry(self, name: str, value: object) -> bytes:
        group = isinstance(value, dict | list)
        body = self._group(value) if group else self._value(value)
        size = struct.pack(">q", len(body)) if self.version == 4 else b""
        return struct.pack(">BH", 20 if group else 21, len(name)) + name.encode("latin-1") + size + body

    def _value(self, value: object) -> bytes:
        if isinstance(value, str):
            text = value.encode("utf-16-le" if self.order == "<" else "utf-16-be")
            return self._typed([20, 4, len(text) // 2], text)
        if isinstance(value, bool):
            return self._typed([8], struct.pack("?", value))
        if isinstance(value, int):
            return self._typed([5], struct.pack(self.order + "I", value))
        if isinstance(value, float):
            return self._typed([6], struct.pack(self.order + "f", value))
        if isinstance(value, tuple):  # a structure of floats
            fields = [number for _ in value for number in (0, 6)]
            return self._typed([15, 0, len(value), *fields], struct.pack(f"{self.order}{len(value)}f", *value))
        assert isinstance(value, np.ndarray)
        if value.dtype.fields:  # an array of structures, as colours of 8 bits
            fields = [number for _ in value.dtype.names for number in (0, 10)]
            return self._typed([20, 15, 0, len(value.dtype.names), *fields, value.size], value.tobytes())
        kind = _VALUES[value.dtype.str[1:]]
        return self._typed([20, kind, value.size], value.astype(value.dtype.newbyteorder(self.order)).tobytes())

    def _typed(self, described: list[int], data: bytes) -> bytes:
        return b"%%%%" + self._length(len(described)) + b"".join(map(self._length, described)) + data

    def _length(self, number: int) -> bytes:
        return struct.pack(">" + self._wide, number)


def image(
    pixels: np.ndarray, *, steps: tuple = (), kind: int | None = None, name: str = "", form: str = "Image"
) -> dict:
    """Return the tags of one image.

    Args:
        pixels: of two or more axes, slowest first.
        steps: size and unit of a pixel along each axis, in the order of the axes; () leaves the calibration out.
        kind: the data type's number, if it is not that of ``pixels``.
    """
    data = {
        "Data": pixels.ravel(),
        "DataType": kind or KINDS[pixels.dtype.str[1:]],
        "Dimensions": list(reversed(pixels.shape)),
        "PixelDepth": pixels.itemsize,
    }
    if steps:
        data["Calibrations"] = {
            "Brightness": {"Origin": 0.0, "Scale": 1.0, "Units": ""},
            "Dimension": [{"Origin": 0.0, "Scale": float(size), "Units": unit} for size, unit in reversed(steps)],
        }
    return {"ImageData": data, "ImageTags": {"Meta Data": {"Format": form}}, "Name": name}


def thumbnail() -> dict:
    """Return the tags of the small picture in colour that stands before the image."""
    return image(np.zeros((8, 8), "i4"), kind=23)


def write_dm(path: Path, *images: dict, version: int = 4, order: str = "<", thumbnail_at: int | None = 0) -> Path:
    """Write a file of ``images``; ``thumbnail_at`` is the thumbnail's place among them, None where there is none."""
    root: dict = {"DocumentTags": {}, "HasWindowPosition": True, "ImageList": list(images)}
    if thumbnail_at is not None:
        root["Thumbnails"] = [{"ImageIndex": thumbnail_at, "SourceSize_Pixels": (8.0, 8.0)}]
    path.write_bytes(Writer(version, order).file(root))
    return path
