"""The printed strip below a microscope's image is left out by what the metadata state, and kept when asked for."""

import numpy as np
import pytest
import tifffile

from emsr_fast.errors import VolumeError
from emsr_fast.io.registry import ChannelOf, open_source
from vendor_tiffs import (
    COLUMNS,
    ROWS,
    fei_ini,
    fibics_xml,
    orion_xml,
    phenom_xml,
    pixels,
    tescan_lines,
    tescan_tag,
    thermo_xml,
    tia_xml,
    vendor_tiff,
)

ALL = slice(None)
BAR = 6
WITH_BAR = pixels(ROWS + BAR)
LINES = f"[MAIN]\n{tescan_lines(BAR)}"

STATED = {
    "fei": ([(34682, fei_ini())], {}),
    "thermo": ([(34683, thermo_xml())], {}),
    "phenom": ([(34683, phenom_xml(BAR))], {}),
    "fibics": ([(51023, fibics_xml())], {}),
    "orion": ([(65000, orion_xml())], {}),
    "zeiss": ([(34118, f"\r\nDP_IMAGE_STORE\r\nStore resolution = {COLUMNS} * {ROWS}\r\n")], {}),
    "tescan": ([(50431, tescan_tag(BAR))], {}),
    "tescan, beside": ([], {"a.hdr": LINES}),
    "hitachi": ([], {"a.txt": f"[SemImageFile]\nInstructName=SU\nPixelSize=2\nDataSize={COLUMNS}x{ROWS}\n"}),
    "jeol": ([], {"a.txt": f"$CM_FULL_SIZE {COLUMNS} {ROWS}\n$$SM_MICRON_BAR 9\n$$SM_MICRON_MARKER 1um\n"}),
}


@pytest.mark.parametrize("kind", STATED)
def test_the_bar_is_left_out_and_said(tmp_path, kind):
    tags, files = STATED[kind]
    vendor_tiff(tmp_path / "a.tif", WITH_BAR, tags=tags)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with open_source(tmp_path / "a.tif") as source:
        assert source.shape == (1, ROWS, COLUMNS)
        np.testing.assert_array_equal(source.read(0, ALL, ALL), WITH_BAR[:ROWS])
        # rows are counted from the end of the image, not of the page
        np.testing.assert_array_equal(
            source.read(0, slice(ROWS - 3, None), slice(1, 9)), WITH_BAR[ROWS - 3 : ROWS, 1:9]
        )
        (note,) = [note for note in source.info.notes if "data bar" in note]
        assert note.startswith(f"rows {ROWS} to {ROWS + BAR - 1} are the data bar (")
        assert note.endswith("and are left out; `keep_data_bar=True` keeps them")
    with open_source(tmp_path / "a.tif", keep_data_bar=True) as source:
        np.testing.assert_array_equal(source.read(0, ALL, ALL), WITH_BAR)
        assert any("are kept as `keep_data_bar` says" in note for note in source.info.notes)


@pytest.mark.parametrize(
    "tags",
    [
        [],
        [(34682, fei_ini(rows=ROWS + BAR))],
        [(34682, fei_ini(rows=ROWS + 2 * BAR))],
        [(34682, fei_ini(columns=2 * COLUMNS))],
        [(34682, fei_ini(rows=0))],
        [(34682, fei_ini(rows=-3))],
        [(34682, fei_ini(rows="1e999"))],
        [(50431, tescan_tag(0))],
        [(50431, tescan_tag(10**6))],
        [(50431, tescan_tag("nan"))],
        [(65000, orion_xml(rows="many"))],
    ],
)
def test_without_a_height_that_fits_all_rows_are_read(tmp_path, tags):
    vendor_tiff(tmp_path / "a.tif", WITH_BAR, tags=tags)
    with open_source(tmp_path / "a.tif") as source:
        np.testing.assert_array_equal(source.read(0, ALL, ALL), WITH_BAR)
        assert not any("data bar" in note for note in source.info.notes)


@pytest.mark.parametrize(("rows", "kept"), [(66, 64), (68, 64), (69, 69), (64, 64), (60, 60)])
def test_a_camera_of_tia_is_square(tmp_path, rows, kept):
    image = vendor_tiff(tmp_path / "a.tif", pixels(rows, 64), tags=[(34682, tia_xml())])
    with open_source(tmp_path / "a.tif") as source:
        np.testing.assert_array_equal(source.read(0, ALL, ALL), image[:kept])


@pytest.mark.parametrize("storage", [{"tile": (16, 16)}, {"rowsperstrip": 7, "compression": "zlib"}])
def test_a_stack_loses_the_bar_of_each_page(tmp_path, storage):
    stack = np.stack([pixels(ROWS + BAR, seed=seed) for seed in range(3)])
    vendor_tiff(tmp_path / "a.tif", stack, tags=[(34682, fei_ini())], **storage)
    with open_source(tmp_path / "a.tif") as source:
        assert source.shape == (3, ROWS, COLUMNS)
        for z in range(3):
            np.testing.assert_array_equal(source.read(z, ALL, ALL), stack[z, :ROWS])


def test_a_bar_in_colour_below_a_grey_image(tmp_path):
    stored = np.repeat(WITH_BAR[..., None], 3, axis=-1)
    stored[ROWS:, :, 1] = 0
    vendor_tiff(tmp_path / "a.tif", stored, tags=[(34682, fei_ini())], photometric="rgb")
    with open_source(tmp_path / "a.tif") as source:
        np.testing.assert_array_equal(source.read(0, ALL, ALL), WITH_BAR[:ROWS])
    with pytest.raises(VolumeError, match="is a colour image"):
        open_source(tmp_path / "a.tif", keep_data_bar=True)


def test_each_file_of_a_folder_loses_its_bar(tmp_path):
    images = [pixels(ROWS + BAR, seed=seed) for seed in range(3)]
    for z, image in enumerate(images):
        vendor_tiff(tmp_path / f"{z}.tif", image, tags=[(34682, fei_ini())])
    for opened, rows in (
        (open_source(tmp_path), ROWS),
        (open_source(tmp_path, keep_data_bar=True), ROWS + BAR),
        (ChannelOf(None).open(tmp_path), ROWS),
        (ChannelOf(0, keep_data_bar=True).open(tmp_path), ROWS + BAR),
    ):
        with opened as source:
            assert source.shape == (3, rows, COLUMNS)
            assert sum("data bar" in note for note in source.info.notes) == 1
            for z in range(3):
                np.testing.assert_array_equal(source.read(z, ALL, ALL), images[z][:rows])
    # one without metadata is of another size
    tifffile.imwrite(tmp_path / "3.tif", images[0])
    with pytest.raises(VolumeError, match="slices of a stack must agree"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("ending", "text"),
    [(".txt", f"[SemImageFile]\nInstructName=SU\nPixelSize=2\nDataSize={COLUMNS}x{ROWS}\n"), ("-tif.hdr", LINES)],
)
def test_in_a_folder_the_files_beside_are_read_and_the_bar_is_said_once(tmp_path, ending, text):
    for z in range(3):
        vendor_tiff(tmp_path / f"{z}.tif", pixels(ROWS + BAR, seed=z))
        (tmp_path / f"{z}{ending}").write_text(text)
    with open_source(tmp_path) as source:
        assert source.shape == (3, ROWS, COLUMNS)
        (note,) = source.info.notes
        assert "are the data bar" in note
        assert f"{ending[-4:]} beside it" in note
    (tmp_path / "other.txt").write_text(text)
    with open_source(tmp_path) as source:
        assert source.info.notes[0] == "1 other file skipped: other.txt"
