"""Writes ND2 files of version 3, for the tests of their reader: named parts, a list of them at the end."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np


def part(name: bytes, content: bytes, *, reserved: int | None = None) -> bytes:
    """Return a part: mark, lengths, its name (padded to ``reserved`` bytes) and its content."""
    length = reserved or len(name)
    return struct.pack("<IIQ", 0x0ABECEDA, length, len(content)) + name.ljust(length, b"\0") + content


def value(name: str, content: object) -> bytes:
    """Return one value of the metadata, in the types that NIS-Elements uses for them."""
    named = name.encode("utf-16-le") + b"\0\0"
    if isinstance(content, dict):
        inside = [value(*one) for one in content.items()]
        head = 2 + len(named) + 12
        places = struct.pack(f"<{len(inside)}Q", *(head + sum(map(len, inside[:n])) for n in range(len(inside))))
        body = b"".join(inside)
        kind, data = 11, struct.pack("<IQ", len(inside), head + len(body)) + body + places
    elif isinstance(content, bool):
        kind, data = 1, struct.pack("<B", content)
    elif isinstance(content, int):
        kind, data = 3, struct.pack("<I", content)
    elif isinstance(content, float):
        kind, data = 6, struct.pack("<d", content)
    else:
        kind, data = 8, str(content).encode("utf-16-le") + b"\0\0"
    return struct.pack("BB", kind, len(named) // 2) + named + data


def write_nd2(
    path: Path,
    stack: np.ndarray,
    *,
    pixel_um: float = 0.004,
    step_um: float = 0.03,
    calibrated: bool = True,
    padding: int = 0,
    missing: int | None = None,
    components: int = 1,
    more: dict[str, object] | None = None,
) -> Path:
    """Write ``stack``, (Z, Y, X, channels); a row has ``padding`` bytes more, frame ``missing`` is left out."""
    depth, height, width, channels = stack.shape
    bits = 8 * stack.dtype.itemsize
    attributes = {
        "uiWidth": width, "uiWidthBytes": width * channels * bits // 8 + padding, "uiHeight": height,
        "uiComp": channels, "uiBpcInMemory": bits, "uiBpcSignificant": bits, "uiSequenceCount": depth,
        "eCompression": 2, **(more or {}),
    }  # fmt: skip
    plane = {"uiCompCount": components, "pFluorescentProbe": {"m_ExcitationSpectrum": {"uiCount": 0}}}
    planes = {f"a{n}": {**plane, "sDescription": f"channel {n}"} for n in range(channels // components)}
    metadata = {
        "bCalibrated": calibrated, "dCalibration": pixel_um,
        "sPicturePlanes": {"uiCount": len(planes), "sPlaneNew": planes},
    }  # fmt: skip
    loop = {"eType": 4, "uLoopPars": {"uiCount": depth, "dZStep": step_um}}
    parts = [
        (b"ND2 FILE SIGNATURE CHUNK NAME01!", b"Ver3.0".ljust(64, b"\0"), None),
        (b"ImageAttributesLV!", value("SLxImageAttributes", attributes), None),
        (b"ImageMetadataSeqLV|0!", value("SLxPictureMetadata", metadata), None),
        *([(b"ImageMetadataLV!", value("SLxExperiment", loop), None)] if depth > 1 else []),
    ]
    for number, plane in enumerate(stack):
        rows = b"".join(row.tobytes() + bytes(padding) for row in plane)
        if number != missing:
            # nd2 takes the pixels to begin 4096 bytes behind the part
            parts.append((f"ImageDataSeq|{number}!".encode(), struct.pack("<d", 0.0) + rows, 4072))
    content, listed = b"", b""
    for name, data, reserved in parts:
        listed += name + struct.pack("<QQ", len(content), len(data)) if content else b""
        content += part(name, data, reserved=reserved)
    end = b"ND2 CHUNK MAP SIGNATURE 0000001!" + struct.pack("<Q", len(content))
    path.write_bytes(content + part(b"ND2 FILEMAP SIGNATURE NAME 0001!", listed + end))
    return path
