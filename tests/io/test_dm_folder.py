"""A folder of DigitalMicrograph or SER files, a slice each, as 3View and TIA write them."""

import numpy as np
import pytest

from dm_files import image, thumbnail, write_dm
from emsr_fast.errors import VolumeError
from emsr_fast.io.registry import open_source
from ser_files import write_ser

STACK = (np.arange(12 * 5 * 6).reshape(12, 5, 6) % 251).astype("u2")


def write_slice(path, plane):
    if path.suffix == ".ser":
        return write_ser(path, plane[None])
    return write_dm(path, thumbnail(), image(plane, steps=((4.0, "nm"), (5.0, "nm"))), version=int(path.suffix[-1]))


@pytest.mark.parametrize("suffix", ["dm3", "dm4", "ser"])
def test_a_folder_is_a_stack_in_numeric_order(tmp_path, suffix):
    for z, plane in enumerate(STACK):
        write_slice(tmp_path / f"view_{z}.{suffix}", plane)
    with open_source(tmp_path) as source:
        assert (source.shape, source.dtype) == (STACK.shape, np.uint16)
        assert source.info.format == "folder of 12 images"
        assert source.info.voxel_size_nm == ((None, 2.0, 3.0) if suffix == "ser" else (None, 4.0, 5.0))
        for z, plane in enumerate(STACK):
            np.testing.assert_array_equal(source.read(z, slice(1, 5), slice(2, 6)), plane[1:, 2:])


def test_of_files_with_several_images_the_key_chooses_the_same_of_each(tmp_path):
    for z, plane in enumerate(STACK):
        write_dm(tmp_path / f"{z}.dm4", thumbnail(), image(plane), image(plane + 1))
    with pytest.raises(VolumeError, match="has 2 images; name one"):
        open_source(tmp_path)
    with open_source(tmp_path, "2") as source:
        assert source.info.key == "2"
        for z, plane in enumerate(STACK):
            np.testing.assert_array_equal(source.read(z, slice(1, 5), slice(2, 6)), plane[1:, 2:] + 1)


@pytest.mark.parametrize("other", [STACK[0, :4], STACK[0].astype("u1")])
def test_slices_of_another_size_or_type_are_named(tmp_path, other):
    write_slice(tmp_path / "1.dm4", STACK[0])
    write_slice(tmp_path / "2.dm4", other)
    with pytest.raises(VolumeError, match=r"2\.dm4 is .*, but 1\.dm4 is 5x6 uint16"):
        open_source(tmp_path)


def test_a_cut_slice_fails_alone(tmp_path):
    for z, plane in enumerate(STACK[:3]):
        write_slice(tmp_path / f"{z}.dm4", plane)
    (tmp_path / "1.dm4").write_bytes((tmp_path / "1.dm4").read_bytes()[:150])
    with open_source(tmp_path) as source:
        assert list(source.info.damaged) == [1]
        np.testing.assert_array_equal(source.read(2, slice(None), slice(None)), STACK[2])


def test_a_stack_among_slices_is_refused(tmp_path):
    write_slice(tmp_path / "0.dm4", STACK[0])
    write_dm(tmp_path / "1.dm4", thumbnail(), image(STACK))
    with pytest.raises(VolumeError, match="holds 12 slices, a folder needs one per file"):
        open_source(tmp_path)
