"""Writes Jeiss .dat files, for the tests of their reader; places and types are those of jeiss-specs."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np


def write_jeiss(
    path: Path,
    pixels: np.ndarray,
    *,
    version: int = 8,
    pixel_nm: float = 8.0,
    detectors: tuple[str, ...] = ("InLens", "ESB"),
    machine: str = "Jeiss 1",
    footer: bytes = b"recipe",
) -> Path:
    """Write ``pixels``, (Y, X, channels) of uint8 or int16."""
    header = bytearray(1024)
    height, width, channels = pixels.shape
    struct.pack_into(">IHH10s", header, 0, 3555587570, version, 1, b"29/11/2026")
    struct.pack_into(">BB", header, 32, channels, pixels.dtype == np.uint8)
    struct.pack_into(">II", header, 100, width, height)
    old = version < 3
    places = (380, 390, 700, 720) if old else (380, 390, 410, 430)
    for at, name in zip(places, detectors, strict=False):
        struct.pack_into("10s", header, at, name.encode())
    struct.pack_into(*(">d", header, 416, pixel_nm) if old else (">f", header, 464, pixel_nm))
    if version >= 5:
        struct.pack_into("30s", header, 800, machine.encode())
    content = pixels.astype(pixels.dtype.newbyteorder(">")).tobytes()
    struct.pack_into(">q", header, 1000, len(header) + len(content))
    path.write_bytes(bytes(header) + content + footer)
    return path
