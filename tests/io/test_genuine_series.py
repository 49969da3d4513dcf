"""Genuine DM3, DM4 and SER files, whose publisher set all pixels to zero; they are not part of the repository."""

import re
import struct
from pathlib import Path

import numpy as np
import pytest

from emsr_fast.errors import VolumeError
from emsr_fast.io.registry import open_source
from genuine_files import MICROSCOPES, genuine, unpacked

ALL = slice(None)
IMAGES = {
    "neoarm-gatan_image_dataZeroed.dm4": ((1, 1024, 1024), "uint32", 0.0192314),
    "Titan_survey_image_dataZeroed.dm3": ((1, 1024, 1024), "uint16", 0.138108),
    "Titan_STEM_stack_dataZeroed.dm3": ((12, 1024, 1024), "uint32", None),
    "Titan_TEM_1_test_ser_image_dataZeroed_1.ser": ((1, 1024, 1024), "uint16", 2.531683),
    "Titan_STEM_3_image_stack_dataZeroed_1.ser": ((5, 1024, 1024), "uint16", 1.145288),
}
REFUSED = {
    "Titan_EELS_proc_1_dataZeroed.dm3": "spectrum",
    "test_corrupted.dm3": "truncated or damaged",
    "Titan_TEM_4_eds_line_scan_1_dataZeroed_1.ser": "spectra",
    "Titan_TEM_13_unreadable_ser_1.ser": "content is not SER",
}


def filled(path, shape, dtype):
    """Fill the pixels of ``path``, found without our readers, with numbers; return these as they are stored."""
    content = np.fromfile(path, np.uint8)
    stack = np.random.default_rng(0).integers(0, 60_000, shape).astype(np.dtype(dtype).newbyteorder("<"))
    if path.suffix == ".ser":
        # the table of places begins where byte 22 says; 50 bytes describe each image
        (table,) = struct.unpack_from("<i", content, 22)
        begins, parts = [place + 50 for place in struct.unpack_from(f"<{len(stack)}i", content, table)], stack
    else:
        # pixels are the only long run of zeros, and what follows begins with another byte
        set_bytes, parts = np.flatnonzero(content), stack[None]
        begins = [set_bytes[1:][np.diff(set_bytes) > stack.nbytes].item() - stack.nbytes]
    for begin, part in zip(begins, parts, strict=True):
        content[begin : begin + part.nbytes] = np.frombuffer(part.tobytes(), np.uint8)
    content.tofile(path)
    return stack


@genuine
@pytest.mark.parametrize("name", IMAGES)
def test_genuine_files_have_their_shape_pixel_size_and_pixels(tmp_path, name):
    shape, dtype, pixel_nm = IMAGES[name]
    path = unpacked(name, tmp_path)
    stack = filled(path, shape, dtype)
    with open_source(path) as source:
        assert (source.shape, source.dtype) == (shape, "float32" if dtype == "uint32" else dtype)
        assert any(dtype in note for note in source.info.notes) == (dtype == "uint32")
        assert source.info.voxel_size_nm == (None, *2 * [pixel_nm and pytest.approx(pixel_nm, rel=1e-5)])
        for z, plane in enumerate(stack):
            # SER has the bottom row first
            np.testing.assert_array_equal(source.read(z, ALL, ALL), plane[::-1] if path.suffix == ".ser" else plane)


@genuine
@pytest.mark.parametrize("name", REFUSED)
def test_genuine_files_without_an_image_are_refused(tmp_path, name):
    with pytest.raises(VolumeError, match=REFUSED[name]) as caught:
        open_source(unpacked(name, tmp_path))
    assert "\n" not in str(caught.value)


@genuine
def test_every_genuine_file_is_read_by_a_test():
    code = "".join(Path(__file__).with_name(f"test_genuine_{kind}.py").read_text() for kind in ("tiff", "series"))
    rows = [line for line in (MICROSCOPES / "README.md").read_text().splitlines() if line.startswith("| ")]
    listed = [name for row in rows for name in re.findall(r"[\w-]+\.(?:dm3|dm4|ser|tif)\b", row.split("|")[1])]
    assert len(listed) == 18
    assert [name for name in listed if f'"{name}"' not in code] == []
