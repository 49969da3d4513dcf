"""Genuine TIFF files of microscopes; they are not part of the repository."""

import numpy as np
import pytest
import tifffile

from emsr_fast.io.registry import open_source
from genuine_files import genuine, unpacked

ALL = slice(None)


def grey_of(stored):
    """Return what tifffile read as one grey image; of RGBA the channels must be equal."""
    if stored.ndim == 3:
        assert (stored[..., 0] == stored[..., 1]).all()
        assert (stored[..., 1] == stored[..., 2]).all()
        stored = stored[..., 0]
    return stored


@genuine
@pytest.mark.parametrize(
    ("name", "size", "dtype", "pixel_nm", "instrument"),
    [
        ("quanta_image.tif", (884, 1024), "uint8", 441.942, "Quanta"),
        ("quanta-fei_2_dataZeroed.tif", (884, 1024), "uint16", 3.33333, "Quanta"),
        ("scios_multigis_metadata_sections.tif", (2048, 3072), "uint8", 3.3724, "Scios 2"),
        ("scios_xml_metadata.tif", (1024, 1536), "uint8", 26.9792, "Scios 2"),
        ("tescan-pfib_dataZeroed.tif", (1280, 1280), "uint16", 1.5625, "TESCAN AMBER X"),
        ("orion-fibics_dataZeroed.tif", (2048, 2048), "uint8", 1.220703125, "Fibics NPVE"),
        ("orion-zeiss_dataZeroed.tif", (1024, 1024), "uint8", 0.9765625, "Zeiss Orion"),
        ("titan_tem_bf_image_dataZeroed.tif", (2048, 2048), "uint8", 1e10 / 2754452.352 / 1e3, "Tecnai"),
        ("quanta_image_32bit.tif", (50, 200), "float32", None, None),
    ],
)
def test_genuine_files_state_instrument_and_pixel(tmp_path, name, size, dtype, pixel_nm, instrument):
    path = unpacked(name, tmp_path)
    with open_source(path) as source:
        assert (source.shape, source.dtype.name) == ((1, *size), dtype)
        assert source.info.voxel_size_nm[2] == (pixel_nm and pytest.approx(pixel_nm, rel=1e-4))
        assert source.info.voxel_size_nm[1] == (pixel_nm and pytest.approx(pixel_nm, rel=1e-4))
        assert (instrument or "None") in str(source.info.instrument)
        stored = grey_of(tifffile.TiffFile(path).pages[0].asarray())
        np.testing.assert_array_equal(source.read(0, ALL, ALL), stored[: size[0]])
        assert any("are the data bar" in note for note in source.info.notes) == (len(stored) > size[0])
    with open_source(path, keep_data_bar=True) as source:
        np.testing.assert_array_equal(source.read(0, ALL, ALL), stored)
