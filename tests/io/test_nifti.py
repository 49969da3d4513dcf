"""NIfTI files, written by nibabel and, independently of it, by ITK."""

import gzip
import sys
from pathlib import Path

import numpy as np
import pytest

from emsr_fast.cli import main
from emsr_fast.errors import VolumeError
from emsr_fast.io.registry import open_source
from reading import rise_in_memory

nibabel = pytest.importorskip("nibabel")
STACK = (np.arange(5 * 30 * 40).reshape(5, 30, 40) * 11 % 30000).astype("i2")


def nifti(path, stack=STACK, *, steps=(0.004, 0.005, 0.03), unit="micron", version=1, order="<", line=None):
    """Write ``stack``, slowest axis first, with steps along x, y, z."""
    kind = {1: nibabel.Nifti1Image, 2: nibabel.Nifti2Image}[version]
    header = {1: nibabel.Nifti1Header, 2: nibabel.Nifti2Header}[version](endianness=order)
    header.set_data_dtype(stack.dtype)
    image = kind(stack.T, None, header)
    image.header.set_zooms((*steps, *[1] * (stack.ndim - 3))[: stack.ndim])
    image.header.set_xyzt_units(unit)
    if line:
        image.header.set_slope_inter(*line)
    nibabel.save(image, path)
    return path


def check(source, stack=STACK):
    assert (source.shape, source.dtype) == (stack.shape, stack.dtype)
    for z, plane in enumerate(stack):
        np.testing.assert_array_equal(source.read(z, slice(None), slice(None)), plane)
    np.testing.assert_array_equal(source.read(1, slice(3, 20), slice(5, 33)), stack[1, 3:20, 5:33])


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("order", "<>")
def test_both_versions_and_byte_orders_packed_or_not(tmp_path, name, version, order):
    with open_source(nifti(tmp_path / name, version=version, order=order)) as source:
        assert source.info.format == f"NIfTI-{version}"
        assert source.info.voxel_size_nm == (30, 5, 4)
        check(source)


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "f4"])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_what_itk_wrote_is_read_with_its_voxel_size(tmp_path, name, dtype):
    sitk = pytest.importorskip("SimpleITK")
    stack = (STACK % 120).astype(dtype)
    image = sitk.GetImageFromArray(stack)
    image.SetSpacing((0.004, 0.005, 0.03))  # mm
    sitk.WriteImage(image, str(tmp_path / name))
    with open_source(tmp_path / name) as source:
        check(source, stack)
        assert source.info.voxel_size_nm == pytest.approx((30_000, 5_000, 4_000), rel=1e-6)


@pytest.mark.parametrize(
    ("unit", "steps", "expected"),
    [
        ("unknown", (4, 5, 30), (None, None, None)),
        ("meter", (4e-9, 5e-9, 3e-8), (30, 5, 4)),
        ("mm", (1, 1, 1), (None, None, None)),
        ("mm", (4e-6, 5e-6, 3e-5), (30, 5, 4)),
    ],
)
def test_a_size_without_a_unit_or_of_one_millimetre_is_unknown(tmp_path, unit, steps, expected):
    with open_source(nifti(tmp_path / "a.nii", unit=unit, steps=steps)) as source:
        assert source.info.voxel_size_nm == expected
        assert any("1 mm per voxel" in note for note in source.info.notes) == (steps == (1, 1, 1))


def test_scaled_values_are_read_as_float32(tmp_path):
    path = nifti(tmp_path / "a.nii", STACK)
    content = bytearray(path.read_bytes())
    content[112:120] = np.array([0.5, -3], "<f4").tobytes()  # scl_slope, scl_inter
    path.write_bytes(content)
    with open_source(path) as source:
        assert source.info.notes[0].startswith("grey values are the stored int16 times 0.5 plus -3")
        check(source, (nibabel.load(path).get_fdata().T).astype("f4"))


def test_of_several_times_none_is_chosen_silently(tmp_path):
    path = nifti(tmp_path / "a.nii", np.stack([STACK, STACK + 1]))
    with pytest.raises(VolumeError, match=r"has 2 along axis T \(TZYX: 2 x 5 x 30 x 40\)"):
        open_source(path)
    with open_source(path, axes="CZYX", channel=1) as source:
        check(source, STACK + 1)


def test_what_is_no_grey_volume_is_refused_by_name(tmp_path):
    colours = np.zeros((8, 8, 3), [(name, "u1") for name in "RGB"])
    nibabel.save(nibabel.Nifti1Image(colours, np.eye(4)), tmp_path / "rgb.nii")
    with pytest.raises(VolumeError, match="colour image"):
        open_source(tmp_path / "rgb.nii")
    nibabel.save(nibabel.Nifti1Image(STACK.T.astype("c8"), np.eye(4)), tmp_path / "c.nii")
    with pytest.raises(VolumeError, match="complex"):
        open_source(tmp_path / "c.nii")
    nibabel.save(nibabel.Nifti1Pair(STACK.T, np.eye(4)), tmp_path / "pair.hdr")
    with pytest.raises(VolumeError, match=r"another file \(\.img\)"):
        open_source(tmp_path / "pair.hdr")
    with pytest.raises(VolumeError, match="leave `key=1` out"):
        open_source(nifti(tmp_path / "a.nii"), "1")


@pytest.mark.parametrize("name", ["anatomical.nii", "standard.nii.gz", "example_nifti2.nii.gz", "example4d.nii.gz"])
def test_genuine_files_that_come_with_nibabel(name):
    path = Path(nibabel.__file__).parent / "tests" / "data" / name
    if not path.exists():
        pytest.skip("this nibabel comes without its files")
    image = nibabel.load(path)
    pixels = image.get_fdata().astype("f4")
    times = pixels.ndim == 4
    ways = {"axes": "CZYX", "channel": pixels.shape[3] - 1} if times else {}
    with open_source(path, **ways) as source:
        expected = (pixels[..., -1] if times else pixels).T
        np.testing.assert_array_equal(
            [source.read(z, slice(None), slice(None)) for z in range(len(expected))], expected
        )


def test_a_cut_file_is_refused_in_one_line(tmp_path, capsys):
    whole = nifti(tmp_path / "a.nii").read_bytes()
    for name, content in (
        ("a.nii", whole),
        ("a.nii.gz", gzip.compress(whole[:-500])),
        ("a.nii.gz", gzip.compress(whole)),
    ):
        (tmp_path / name).write_bytes(content[:-100])
        assert main(["inspect", str(tmp_path / name)]) == 3
        said = capsys.readouterr().err
        assert "truncated" in said or "cannot be unpacked" in said
        assert said.count("\n") == 1


def test_without_nibabel_the_extra_is_named(tmp_path, capsys, monkeypatch):
    path = nifti(tmp_path / "a.nii")
    monkeypatch.setitem(sys.modules, "nibabel", None)
    assert main(["inspect", str(path)]) == 3
    said = capsys.readouterr().err
    assert "needs the extra emsr-fast[formats]: nibabel is not installed; install it with: " in said
    assert said.count("\n") == 1


def test_a_stack_is_read_a_slice_at_a_time(tmp_path):
    path = nifti(tmp_path / "a.nii", np.ones((50, 1024, 1024), "u1"))
    assert rise_in_memory(path) < 21 * 2**20
