"""Writes SER files as TIA does, for the tests of their reader."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

KINDS = {"u1": 1, "u2": 2, "u4": 3, "i1": 4, "i2": 5, "i4": 6, "f4": 7, "f8": 8, "c8": 9}


def write_ser(
    path: Path,
    stack: np.ndarray,
    *,
    version: int = 0x220,
    step_m: tuple[float, float] = (2e-9, 3e-9),
    planned: int | None = None,
    content: int = 0x4122,
) -> Path:
    """Write ``stack``, (Z, Y, X), with pixels of ``step_m``, (y, x); ``planned`` images, of which it is the first."""
    wide = "i" if version == 0x210 else "q"
    planned = planned or len(stack)
    head = struct.pack("<2shhiiii", b"II", 0x197, version, content, 0x4152, planned, len(stack))
    dimension = struct.pack("<iddi", planned, 0, 1, 0) + struct.pack("<i6si", 6, b"Number", 0)
    at = len(head) + struct.calcsize(f"<{wide}i") + len(dimension)
    begin = at + 2 * planned * struct.calcsize(wide)
    step_y, step_x = step_m
    planes = []
    for plane in stack:
        kind, (height, width) = KINDS[plane.dtype.str[1:]], plane.shape
        described = struct.pack("<ddiddihii", 0, step_x, 0, 0, step_y, 0, kind, width, height)
        # the bottom row comes first
        planes.append(described + plane[::-1].astype(plane.dtype.newbyteorder("<")).tobytes() + bytes(8))
    places = np.cumsum([begin, *map(len, planes)])[:-1].tolist() + [0] * (planned - len(stack))
    tags = [0] * planned
    path.write_bytes(
        head
        + struct.pack(f"<{wide}i", at, 1)
        + dimension
        + struct.pack(f"<{2 * planned}{wide}", *places, *tags)
        + b"".join(planes)
    )
    return path
