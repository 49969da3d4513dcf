"""TIFF files of microscopes: the instrument and the pixel size that their tags, or files beside them, state."""

import os
import struct

import numpy as np
import pytest
import tifffile

from emsr_fast.cli import main
from emsr_fast.io.registry import open_source
from emsr_fast.io.voxels import UNKNOWN
from vendor_tiffs import (
    fei_ini,
    fibics_xml,
    orion_xml,
    phenom_xml,
    pixels,
    sightx_xml,
    sis_tag,
    tescan_lines,
    tescan_tag,
    thermo_xml,
    tia_xml,
    tvips_tag,
    vendor_tiff,
)

ALL = slice(None)


FEI, TESCAN = "FEI's TIFF tag 34682", "TESCAN's TIFF tag 50431"
VENDORS = {
    "fibics": ([(51023, fibics_xml())], (5, 5), "Fibics NPVE v4.5 SEM", "Fibics' TIFF tag 51023"),
    # along a rotated scan, each step has two parts
    "fibics, rotated": (
        [(51023, fibics_xml("0.003").replace("<Uy>0", "<Uy>0.004"))], (5, 5), "Fibics NPVE v4.5 SEM",
        "Fibics' TIFF tag 51023",
    ),
    "orion": ([(65000, orion_xml())], (0.8, 0.9), "Zeiss Orion", "Zeiss' TIFF tag 65000"),
    "zeiss": (
        [(34118, "\r\nAP_IMAGE_PIXEL_SIZE\r\nImage Pixel Size = 5.582 nm\r\nAP_PIXEL_SIZE\r\nPixel Size = 9 nm\r\n")],
        (5.582, 5.582), "Zeiss SEM", "AP_IMAGE_PIXEL_SIZE in Zeiss' TIFF tag 34118",
    ),
    "zeiss, other spelling": (
        [(34118, "\r\nAP_PIXEL_SIZE\r\nPixel Size = 0.25 \u00b5m\r\n")], (250, 250), "Zeiss SEM",
        "AP_PIXEL_SIZE in Zeiss' TIFF tag 34118",
    ),
    # 32 columns where the number is for 1024
    "zeiss, without names": (
        [(34118, "0\r\n0\r\n0\r\n2.5E-10\r\n0\r\n")], (8, 8), "Zeiss SEM",
        "the fourth number in Zeiss' TIFF tag 34118",
    ),
    "fei": ([(34682, fei_ini())], (5, 4), "FEI Quanta FEG", FEI),
    "fei, section of the beam": ([(34682, fei_ini("EScan"))], (5, 4), "FEI Quanta FEG", FEI),
    "fei, sections twice": (
        [(34682, fei_ini(more="[Scan]\r\nPixelWidth=\r\nDwell=1\r\n[Image]\r\n[System]\r\nSystemType=Other\r\n"))],
        (5, 4), "FEI Quanta FEG", FEI,
    ),
    "fei, decimal comma": ([(34682, fei_ini(size="4,0e-009"))], (5, 4), "FEI Quanta FEG", FEI),
    "fei, sfeg": ([(34680, fei_ini("IScan"))], (5, 4), "FEI Quanta FEG", "FEI's TIFF tag 34680"),
    "fei, field of view": (
        [(34682, fei_ini("Other", more="[EBeam]\r\nHFW=3.2e-7\r\nVFW=4e-7\r\n"))], (10, 10), "FEI Quanta FEG", FEI,
    ),
    "thermo": ([(34683, thermo_xml())], (5, 4), "Thermo Helios", "Thermo's TIFF tag 34683"),
    "phenom": ([(34683, phenom_xml())], (5, 4), "Thermo Phenom ProX", "Thermo's TIFF tag 34683"),
    "tia, cm": (
        [(34682, tia_xml()), (65450, (2500000, 1)), (65451, (2000000, 1)), (65452, 3)], (5, 4), "FEI Tecnai 200 kV",
        "TIA's TIFF tags 65450 and 65451",
    ),
    "tia, inch": (
        [(34682, tia_xml()), (65450, (6350000, 1)), (65451, (5080000, 1)), (65452, 2)], (5, 4), "FEI Tecnai 200 kV",
        "TIA's TIFF tags 65450 and 65451",
    ),
    "tescan": ([(50431, tescan_tag())], (5, 4), "TESCAN MIRA", TESCAN),
    "tvips": ([(37706, tvips_tag())], (5, 4), "TVIPS TemCam-F416", "TVIPS' TIFF tag 37706"),
}  # fmt: skip


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("kind", VENDORS)
def test_the_size_and_the_instrument_in_tags(tmp_path, kind, byteorder):
    tags, (y, x), instrument, origin = VENDORS[kind]
    if kind == "tvips":  # a structure in the byte order of the file
        tags = [(37706, tvips_tag(order=byteorder))]
    image = vendor_tiff(tmp_path / "a.tif", tags=tags, resolution=(72, 72), resolutionunit="INCH", byteorder=byteorder)
    with open_source(tmp_path / "a.tif") as source:
        assert source.info.voxel_size_nm == (None, pytest.approx(y, rel=1e-6), pytest.approx(x, rel=1e-6))
        assert (source.info.instrument, source.info.voxel_size_from) == (instrument, origin)
        assert source.info.notes == ()
        np.testing.assert_array_equal(source.read(0, ALL, ALL), image)


@pytest.mark.parametrize(
    ("fourth", "named", "expected"),
    [
        # 32 columns: the image's pixel is 32 times that of 1024 columns
        ("1.00123E-10", "AP_IMAGE_PIXEL_SIZE\r\nImage Pixel Size = 3.2 nm", 3.203936),
        ("1.00123E-10", "AP_PIXEL_SIZE\r\nPixel Size = 3.2 nm", 3.203936),
        ("1.00123E-10", "AP_PIXEL_SIZE\r\nPixel Size = 0.1001 nm", 3.203936),
        ("1.00123E-10", "AP_IMAGE_PIXEL_SIZE\r\nImage Pixel Size = 0.1001 nm", 0.1001),
        ("1.00123E-10", "AP_PIXEL_SIZE\r\nPixel Size = 8 nm", 8),
        ("0", "AP_PIXEL_SIZE\r\nPixel Size = 8 nm", 8),
        ("-1", "AP_MAG\r\nMag = 8 K X", None),
    ],
)
def test_the_exact_number_of_zeiss_is_taken_where_a_named_size_agrees(tmp_path, fourth, named, expected):
    vendor_tiff(tmp_path / "a.tif", tags=[(34118, f"0\r\n0\r\n0\r\n{fourth}\r\n0\r\n{named}\r\n")])
    with open_source(tmp_path / "a.tif") as source:
        assert source.info.voxel_size_nm == ((None, expected, expected) if expected else UNKNOWN)
        assert source.info.instrument == "Zeiss SEM"


@pytest.mark.parametrize(
    ("units", "steps", "expected"),
    [
        (("nm", "nm"), (4.0, 5.0), (None, 5, 4)),
        (("\u00b5m", "\u00b5m"), (0.004, 0.005), (None, 5, 4)),
        (("nm", "nm", "nm"), (4.0, 5.0, 50.0), (50, 5, 4)),
        (("nm", "1/nm"), (4.0, 5.0), (None, None, 4)),
        (("1/nm", "1/nm"), (4.0, 5.0), UNKNOWN),
        (("", ""), (4.0, 5.0), UNKNOWN),
        (("nm", "nm"), (0.0, float("nan")), UNKNOWN),
    ],
)
def test_units_and_steps_of_digital_micrograph(tmp_path, units, steps, expected):
    tags = [(65003 + axis, unit) for axis, unit in enumerate(units)]
    tags += [(65009 + axis, step) for axis, step in enumerate(steps)]
    vendor_tiff(tmp_path / "a.tif", tags=tags)
    with open_source(tmp_path / "a.tif") as source:
        assert source.info.voxel_size_nm == expected
        assert source.info.instrument == (None if expected == UNKNOWN else "Gatan DigitalMicrograph")


@pytest.mark.parametrize(
    ("xml", "unit", "expected"),
    [
        (sightx_xml(), "CENTIMETER", (None, 20, 20)),
        (sightx_xml(), "INCH", (None, 50.8, 50.8)),
        (sightx_xml(mode="DIFF"), "CENTIMETER", UNKNOWN),
        (sightx_xml(eos="modeASID"), "CENTIMETER", UNKNOWN),
        (sightx_xml(magnification="0"), "CENTIMETER", UNKNOWN),
        # nothing else may be taken for the pixel: the resolution tags are the camera's
        ("<TemReporter><Eos>", "CENTIMETER", UNKNOWN),
    ],
)
def test_a_sightx_pixel_is_the_cameras_over_the_magnification(tmp_path, xml, unit, expected):
    tags = [(271, "JEOL Ltd.")]
    vendor_tiff(tmp_path / "a.tif", tags=tags, description=xml, resolution=(100, 100), resolutionunit=unit)
    with open_source(tmp_path / "a.tif") as source:
        assert source.info.voxel_size_nm == expected
        assert "JEOL" in source.info.instrument


def test_an_olympus_pixel_has_an_exponent(tmp_path):
    header, general = sis_tag()
    # the tag has the place of its second part, which is known only after a first writing
    place = struct_place(tmp_path, header, general)
    vendor_tiff(tmp_path / "a.tif", tags=[(33560, place)])
    with open_source(tmp_path / "a.tif") as source:
        assert source.info.voxel_size_nm == (None, 5, 4)
        assert source.info.instrument == "Olympus SIS MegaView"


def struct_place(tmp_path, header, general):
    def tag(offset):
        return header + struct.pack("<hhI", 1, 1, offset) + general

    vendor_tiff(tmp_path / "first.tif", tags=[(33560, tag(0))])
    offset = (tmp_path / "first.tif").read_bytes().index(b"SIS0") + len(header) + 8
    return tag(offset)


HITACHI = "[SemImageFile]\r\nInstructName=S-4800\r\nPixelSize=24.8\r\nDataSize=32x40\r\n"
JEOL_SEM = "$CM_INSTRUMENT JSM-7500F\n$CM_FULL_SIZE 32 40\n$$SM_MICRON_BAR 50\n$$SM_MICRON_MARKER 1um\n"
TESCAN_HDR = f"[MAIN]\n{tescan_lines()}\n[SEM]\nHV=1000\n"


@pytest.mark.parametrize(
    ("name", "text", "expected", "instrument"),
    [
        ("a.txt", HITACHI.encode(), (24.8, 24.8), "Hitachi S-4800"),
        ("a.txt", HITACHI.encode("utf-16"), (24.8, 24.8), "Hitachi S-4800"),
        ("a.TXT", HITACHI.replace("24.8", "0.5 um").encode("utf-8-sig"), (500, 500), "Hitachi S-4800"),
        ("a.txt", HITACHI.replace("Sem", "Tem").encode(), (24.8, 24.8), "Hitachi S-4800"),
        ("a.txt", HITACHI.replace("24.8", "").encode(), None, "Hitachi S-4800"),
        ("a.txt", JEOL_SEM.encode(), (20, 20), "JEOL JSM-7500F"),
        ("a.txt", JEOL_SEM.replace("BAR 50", "BAR 0").encode(), None, "JEOL JSM-7500F"),
        ("a.hdr", TESCAN_HDR.encode(), (5, 4), "TESCAN MIRA"),
        ("a-tif.hdr", TESCAN_HDR.replace("\n", "\r\n").encode(), (5, 4), "TESCAN MIRA"),
        ("a.txt", b"notes of the operator", None, None),
        ("a.hdr", b"ENVI\nsamples = 32\n", None, None),
        ("b.txt", HITACHI.encode(), None, None),
    ],
)
def test_the_size_in_a_file_beside(tmp_path, name, text, expected, instrument):
    vendor_tiff(tmp_path / "a.tif")
    (tmp_path / name).write_bytes(text)
    with open_source(tmp_path / "a.tif") as source:
        assert source.info.voxel_size_nm == ((None, *expected) if expected else UNKNOWN)
        assert (instrument or "None") in str(source.info.instrument)
        if expected:
            assert source.info.voxel_size_from == f"the {name[-4:].lower()} beside it"


def test_a_long_name_of_an_instrument_is_shortened(tmp_path):
    vendor_tiff(tmp_path / "a.tif", tags=[(34682, fei_ini().replace("Quanta", "Q\t" + 900 * "Q"))])
    with open_source(tmp_path / "a.tif") as source:
        assert len(source.info.instrument) == 80
        assert source.info.instrument.startswith("FEI Q QQQ")


def test_a_pipe_beside_is_left_alone(tmp_path):
    vendor_tiff(tmp_path / "a.tif")
    os.mkfifo(tmp_path / "a.txt")
    with open_source(tmp_path / "a.tif") as source:
        assert source.info.voxel_size_nm == UNKNOWN


def test_a_file_beside_that_leads_out_of_the_folder_or_is_huge_is_left_alone(tmp_path):
    (tmp_path / "in").mkdir()
    vendor_tiff(tmp_path / "in" / "a.tif")
    (tmp_path / "secret").write_text(HITACHI)
    (tmp_path / "in" / "a.txt").symlink_to(tmp_path / "secret")
    with open((tmp_path / "in" / "a.hdr"), "wb") as file:
        file.truncate(2**30)
    with open_source(tmp_path / "in" / "a.tif") as source:
        assert source.info.voxel_size_nm == UNKNOWN
        assert source.info.instrument is None
        assert sum("beside it is not read" in note for note in source.info.notes) == 2


DAMAGED = {
    "cut": [(51023, fibics_xml()[:-20])],
    "entities": [(51023, fibics_xml(declared='<!DOCTYPE Fibics [<!ENTITY a "0.005">]>'))],
    "another root": [(51023, "<Other/>")],
    "no numbers": [(51023, fibics_xml("much", "nan"))],
    "orion, cut": [(65000, orion_xml()[:100])],
    "orion, no length": [(65000, orion_xml(unit="Volts"))],
    "thermo, entities": [(34683, "<!DOCTYPE a><Metadata/>")],
    "thermo, cut": [(34683, thermo_xml()[:-30])],
    "tia, cut": [(34682, tia_xml()[:-30])],
    "tia, no density": [(34682, tia_xml()), (65450, (0, 0)), (65451, (1, 0)), (65452, 3)],
    "tia, no unit": [(34682, tia_xml()), (65450, (25, 1)), (65451, (25, 1)), (65452, 1)],
    "fei, no number": [(34682, fei_ini(size="").replace("5.0e-9", "inf"))],
    "fei, a negative field": [(34682, fei_ini("Other", more="[EBeam]\r\nHFW=\r\nVFW=x\r\n"))],
    "tescan, no length": [(50431, tescan_tag().replace(b"0.0000", b"x.0000"))],
    "tescan, empty": [(50431, b"\x00")],
    "tvips, damaged": [(37706, tvips_tag(magic=1))],
    "tvips, cut": [(37706, tvips_tag()[:200])],
    "zeiss, no unit": [(34118, "\r\nAP_IMAGE_PIXEL_SIZE\r\nImage Pixel Size = much\r\n")],
    "olympus, damaged": [(33560, b"SIS1" + bytes(100))],
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_metadata_are_left_out_and_the_pixels_are_read(tmp_path, kind):
    image = vendor_tiff(tmp_path / "a.tif", tags=DAMAGED[kind])
    with open_source(tmp_path / "a.tif") as source:
        assert source.info.voxel_size_nm == UNKNOWN
        np.testing.assert_array_equal(source.read(0, ALL, ALL), image)
        if "entities" in kind:
            assert any("DOCTYPE" in note for note in source.info.notes)
        if "cut" in kind and "tvips" not in kind:
            assert any("its XML cannot be read" in note for note in source.info.notes)


def test_ome_and_imagej_go_before_the_microscope(tmp_path):
    for name, options in (
        ("a.ome.tif", {"metadata": {"PhysicalSizeX": 7, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 7,
                                    "PhysicalSizeYUnit": "nm"}}),
        ("a.tif", {"imagej": True, "metadata": {"unit": "nm"}, "resolution": (1 / 7, 1 / 7)}),
    ):  # fmt: skip
        vendor_tiff(tmp_path / name, tags=[(34682, fei_ini())], **options)
        with open_source(tmp_path / name) as source:
            assert source.info.voxel_size_nm == (None, pytest.approx(7), pytest.approx(7))
            assert source.info.instrument == "FEI Quanta FEG"


def test_a_picture_of_another_size_has_another_pixel(tmp_path):
    tags = [(51023, "s", 0, fibics_xml().encode("latin-1"), True)]
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(pixels(), extratags=tags)
        file.write(pixels(20, 16))
    for key, expected in (("0", (None, 5, 5)), ("1", UNKNOWN)):
        with open_source(tmp_path / "a.tif", key) as source:
            assert source.info.voxel_size_nm == expected
            assert source.info.instrument == "Fibics NPVE v4.5 SEM"


def test_inspect_and_a_folder_of_such_files_name_the_instrument(tmp_path, capsys):
    for z in range(3):
        vendor_tiff(tmp_path / f"s{z}.tif", pixels(seed=z), tags=[(34682, fei_ini())])
    assert main(["inspect", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "made by FEI Quanta FEG" in shown
    assert "unknown x 5 x 4 nm (z, y, x), FEI's TIFF tag 34682" in shown
