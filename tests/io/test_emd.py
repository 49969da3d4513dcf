"""EMD files of Velox and NCEM: which datasets are images, their axes and pixel sizes."""

import h5py
import numpy as np
import pytest

from emd_files import ncem, velox
from emsr_fast.errors import VolumeError
from emsr_fast.io.registry import open_source

STACK = (np.arange(3 * 6 * 8).reshape(3, 6, 8) * 3 % 251).astype("u2")  # Z, Y, X
EVERYTHING = slice(None)


def check(source, stack):
    assert (source.shape, source.dtype) == (stack.shape, stack.dtype)
    for z, plane in enumerate(stack):
        np.testing.assert_array_equal(source.read(z, EVERYTHING, EVERYTHING), plane)
        np.testing.assert_array_equal(source.read(z, slice(1, 4), slice(2, 7)), plane[1:4, 2:7])


def test_velox_frames_are_slices_and_come_last(tmp_path):
    with open_source(velox(tmp_path / "a.emd", STACK)) as source:
        check(source, STACK)
        assert source.info.format == "Velox EMD"
        assert source.info.voxel_size_nm == (None, 2.0, 3.0)
        assert source.info.voxel_size_from == "Velox metadata"


def test_of_several_velox_images_the_key_chooses_and_the_detector_is_named(tmp_path):
    path = velox(tmp_path / "a.emd", STACK, STACK[:1] + 1)
    with pytest.raises(VolumeError, match=r"2 images; .*0/Data \(HAADF, 6 x 8 x 3 uint16\).*1/Data \(DF2, "):
        open_source(path)
    with open_source(f"{path}:/Data/Image/{1:032x}/Data") as source:
        check(source, STACK[:1] + 1)


@pytest.mark.parametrize(
    ("made", "sizes"),
    [
        ({"unit": "1/m"}, (None, None, None)),
        ({"unit": ""}, (None, None, None)),
        ({"pixel": ("x", None)}, (None, None, None)),
        ({"metadata": b"{"}, (None, None, None)),
        ({"metadata": b"[]"}, (None, None, None)),
        ({"metadata": b"[" * 3900}, (None, None, None)),
        ({"unit": "nm", "pixel": ("0.5", "0.25")}, (None, 0.5, 0.25)),
    ],
)
def test_velox_metadata_that_state_no_length_leave_the_size_unknown(tmp_path, made, sizes):
    with open_source(velox(tmp_path / "a.emd", STACK, **made)) as source:
        check(source, STACK)
        assert source.info.voxel_size_nm == sizes


MADE_BY = {"Manufacturer": "FEI Company", "InstrumentClass": "Talos", "InstrumentModel": "F200X"}


@pytest.mark.parametrize(
    ("told", "expected"), [(MADE_BY, "FEI Company Talos F200X"), ({"InstrumentModel": 7}, "7"), (None, None)]
)
def test_velox_names_the_instrument(tmp_path, told, expected):
    with open_source(velox(tmp_path / "a.emd", STACK, instrument=told)) as source:
        assert source.info.instrument == expected


@pytest.mark.parametrize("names", ["HalfEven", "HalfOdd", ""])
def test_complex_numbers_of_velox_are_refused_by_name(tmp_path, names):
    path = velox(tmp_path / "a.emd", STACK)
    with h5py.File(path, "a") as file:
        (group,) = file["Data/Image"].values()
        del group["Data"]
        group["Data"] = np.zeros((6, 4, 1), [(f"realFloat{names}", "<f4"), (f"imagFloat{names}", "<f4")])
    with pytest.raises(VolumeError, match="holds complex numbers, such as a Fourier transform; give an image"):
        open_source(path)


@pytest.mark.parametrize("table", [None, np.zeros(40, "u1"), np.zeros((40, 3), "u2"), np.zeros((40, 0), "u1")])
def test_velox_metadata_of_another_form_leave_the_size_unknown(tmp_path, table):
    path = velox(tmp_path / "a.emd", STACK)
    with h5py.File(path, "a") as file:
        (group,) = file["Data/Image"].values()
        del group["Metadata"]
        if table is not None:
            group["Metadata"] = table
    with open_source(path) as source:
        check(source, STACK)
        assert source.info.voxel_size_nm == (None, None, None)


def test_a_velox_file_without_images_is_refused(tmp_path):
    with pytest.raises(VolumeError, match="Velox file without images, with spectra only"):
        open_source(velox(tmp_path / "a.emd"))


STEPS = [(30.0 * np.arange(3), "z", "[n_m]"), (2.0 * np.arange(6), "y", "[n_m]"), ((0.0, 0.003), "x", "[u_m]")]


def test_ncem_axes_and_steps_are_those_of_the_dim_vectors(tmp_path):
    with open_source(ncem(tmp_path / "a.emd", STACK, STEPS)) as source:
        check(source, STACK)
        assert source.info.format == "NCEM EMD"
        assert source.info.voxel_size_nm == pytest.approx((30.0, 2.0, 3.0), rel=1e-6)
        assert source.info.voxel_size_from == "EMD dim vectors"


def test_ncem_version_1_has_words_for_types_and_counts_vectors_from_0(tmp_path):
    steps = [((0.0, 30.0), "z", "nm"), ((0.0, 20.0), "y", "A"), ((0.0, 30.0), "x", "A")]
    with open_source(ncem(tmp_path / "a.emd", STACK, steps, version=1)) as source:
        check(source, STACK)
        assert source.info.format == "NCEM EMD"
        assert source.info.voxel_size_nm == pytest.approx((30.0, 2.0, 3.0), rel=1e-6)


@pytest.mark.parametrize("attribute", ["microscope name", "Microscope", "name"])
def test_ncem_names_the_instrument(tmp_path, attribute):
    with open_source(ncem(tmp_path / "a.emd", STACK, STEPS, instrument={attribute: "TEAM I"})) as source:
        assert source.info.instrument == "TEAM I"


def test_steps_of_diffraction_that_are_called_metres_are_not_taken(tmp_path):
    dims = [([0], "Number", ""), ((0.0, 8.9e6), "y", "[m]"), ((0.0, 8.9e6), "x", "[m]")]
    with open_source(ncem(tmp_path / "a.emd", STACK, dims)) as source:
        assert source.info.voxel_size_nm == (None, None, None)
        assert any("the step of dim2 ignored: 8.9e+06 m is no pixel of a micro" in note for note in source.info.notes)


def test_ncem_axes_in_another_order_are_put_in_order(tmp_path):
    order = [STEPS[1], STEPS[2], STEPS[0]]
    with open_source(ncem(tmp_path / "a.emd", np.moveaxis(STACK, 0, -1), order)) as source:
        check(source, STACK)
        assert source.info.voxel_size_nm == pytest.approx((30.0, 2.0, 3.0), rel=1e-6)


@pytest.mark.parametrize("name", ["angles", "time", ""])
def test_the_ncem_axis_beside_y_and_x_holds_the_slices_whatever_its_name(tmp_path, name):
    order = [STEPS[1], STEPS[2], (2.0 * np.arange(len(STACK)), name, "[deg]")]
    with open_source(ncem(tmp_path / "a.emd", np.moveaxis(STACK, 0, -1), order)) as source:
        check(source, STACK)
        assert source.info.voxel_size_nm[0] is None
        assert source.info.voxel_size_nm[1:] == pytest.approx((2.0, 3.0), rel=1e-6)


@pytest.mark.parametrize("place", [0, 2])
def test_ncem_spectrum_images_are_refused(tmp_path, place):
    order = [STEPS[1], STEPS[2]]
    order.insert(place, (0.5 * np.arange(len(STACK)), "Energy", "[eV]"))
    ncem(tmp_path / "a.emd", np.moveaxis(STACK, 0, place), order)
    with pytest.raises(VolumeError, match="is a spectrum image, one of its axes is in eV; give an image"):
        open_source(tmp_path / "a.emd")


def test_ncem_vectors_counted_from_the_fastest_axis_are_told_by_their_lengths(tmp_path):
    counted = [(values if len(values) > 2 else 3.0 * np.arange(8), name, "nm") for values, name, _ in STEPS[::-1]]
    with open_source(ncem(tmp_path / "a.emd", STACK, counted)) as source:
        check(source, STACK)
        assert source.info.voxel_size_nm == pytest.approx((30.0, 2.0, 3.0), rel=1e-6)


@pytest.mark.parametrize(
    "dims", [[], [([0], "z", ""), ([0], "y", ""), ([0], "x", "")], [(v, "a", "[px]") for v, _, _ in STEPS]]
)
def test_ncem_without_names_or_lengths_is_a_stack_of_unknown_size(tmp_path, dims):
    with open_source(ncem(tmp_path / "a.emd", STACK, dims)) as source:
        check(source, STACK)
        assert source.info.voxel_size_nm == (None, None, None)
