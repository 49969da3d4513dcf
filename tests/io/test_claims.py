"""What a header claims is compared with the file before memory is taken for it."""

import numpy as np
import pytest
import tifffile

from reading import read_apart


@pytest.mark.parametrize(
    "text",
    [
        '{"shape": [400000000, 48, 56]}',
        '{"shape": [400000000, 48, 56], "truncated": true}',
        '{"shape": [400000000, 48, 56], "axes": "ZYX"}',
        '{"shape": [4, 100000000, 48, 56], "axes": "TZYX"}',
    ],
)
def test_a_tiff_that_claims_more_slices_than_it_can_hold_takes_no_memory(tmp_path, text):
    pixels = np.random.default_rng(0).integers(0, 255, (48, 56)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, description=text, metadata=None)
    said, peak = read_apart(tmp_path / "a.tif")
    assert said.startswith("refused")
    assert "claims 400000000 slices, the file has" in said
    assert 0 < peak < 300
