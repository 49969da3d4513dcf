"""An OME-TIFF names its parts and counts its planes: it must not read other files, nor take memory for a claim."""

import os
import struct

import numpy as np
import pytest
import tifffile

from emsr_fast.errors import VolumeError
from emsr_fast.io.registry import open_source
from reading import read_apart

PIXELS = np.random.default_rng(0).integers(0, 255, (3, 16, 16)).astype(np.uint8)
MODULO = (
    '<StructuredAnnotations><XMLAnnotation ID="A" Namespace="openmicroscopy.org/omero/dimension/modulo"><Value><Modulo>'
    '<ModuloAlongZ Start="0" End="400000000"/></Modulo></Value></XMLAnnotation></StructuredAnnotations>'
)


def write_ome(path, data="<TiffData/>", depth=3, more="", uuid=""):
    xml = (
        f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"{uuid}>'
        f'<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="16" SizeY="16" '
        f'SizeZ="{depth}" SizeC="1" SizeT="1"><Channel ID="Channel:0" SamplesPerPixel="1"/>{data}</Pixels></Image>'
        f"{more}</OME>"
    )
    path.parent.mkdir(exist_ok=True)
    with tifffile.TiffWriter(path) as file:
        for z, page in enumerate(PIXELS):
            file.write(page, description=xml if z == 0 else None, metadata=None, photometric="minisblack")


def parts(*names):
    named = (
        f'<TiffData FirstZ="{z}" IFD="0" PlaneCount="1"><UUID FileName="{name}">urn:uuid:{z}</UUID></TiffData>'
        for z, name in enumerate(names)
    )
    return "".join(named)


@pytest.fixture
def folder(tmp_path):
    """A folder for a set, beside files that it must not reach."""
    tifffile.imwrite(tmp_path / "victim.tif", PIXELS[0], photometric="minisblack")
    (tmp_path / "secret.txt").write_text("hush:password\n" * 9)
    (tmp_path / "set").mkdir()
    tifffile.imwrite(tmp_path / "set" / "own.tif", PIXELS[1], photometric="minisblack")
    (tmp_path / "set" / "link.tif").symlink_to("../victim.tif")
    (tmp_path / "set" / "here.tif").symlink_to("own.tif")
    (tmp_path / "set" / "notes.tif").write_text("hush:password\n" * 9)
    (tmp_path / "set" / "inner").mkdir()
    os.mkfifo(tmp_path / "set" / "pipe.tif")
    return tmp_path / "set"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../victim.tif", "lies in another folder"),
        ("ABSOLUTE", "lies in another folder"),
        ("../secret.txt", "lies in another folder"),
        ("../absent.tif", "lies in another folder"),
        ("/dev/zero", "lies in another folder"),
        ("link.tif", "is a link that leads out of the volume"),
        ("pipe.tif", "is a pipe, device or folder, not a file"),
        ("inner", "is a pipe, device or folder, not a file"),
        ("notes.tif", "which is not a TIFF file"),
    ],
)
def test_a_part_that_is_not_a_tiff_file_of_the_folder_is_refused(folder, name, reason):
    name = str(folder.parent / "victim.tif") if name == "ABSOLUTE" else name
    write_ome(folder / "a.ome.tif", parts(name, name), depth=2)
    said, _ = read_apart(folder / "a.ome.tif")
    assert said.startswith("refused")
    assert reason in said
    assert "hush" not in said  # no byte of the file that was named


def test_parts_in_the_folder_are_read_also_through_a_link_inside_it(folder):
    write_ome(folder / "a.ome.tif", parts("own.tif", "here.tif"), depth=2)
    with open_source(folder / "a.ome.tif") as source:
        np.testing.assert_array_equal(source.read(1, slice(0, 16), slice(0, 16)), PIXELS[1])


def test_a_file_that_was_moved_is_read_although_its_metadata_name_its_old_place(folder):
    own = '<TiffData><UUID FileName="/data/old/a.ome.tif">urn:uuid:9</UUID></TiffData>'
    write_ome(folder / "a.ome.tif", own, uuid=' UUID="urn:uuid:9"')
    with open_source(folder / "a.ome.tif") as source:
        assert source.shape == (3, 16, 16)


@pytest.mark.parametrize(
    "claim",
    [{"depth": 400_000_000}, {"data": '<TiffData PlaneCount="400000000"/>'}, {"more": MODULO}],
    ids=["SizeZ", "PlaneCount", "Modulo"],
)
def test_a_claim_of_more_planes_than_the_file_can_hold_takes_no_memory(folder, claim):
    write_ome(folder / "a.ome.tif", **claim)
    said, peak = read_apart(folder / "a.ome.tif")
    assert said.startswith("refused")
    assert "claims 4e+08 planes" in said
    assert 0 < peak < 300


@pytest.mark.parametrize("name", ["x" * 5000, "../" + "x" * 5000, "../" * 900 + "x"])
def test_a_name_that_no_file_can_have_is_a_file_that_is_missing(folder, name):
    write_ome(folder / "a.ome.tif", f'<TiffData><UUID FileName="{name}">urn:uuid:9</UUID></TiffData>')
    if name.startswith(".."):
        with pytest.raises(VolumeError, match="lies in another folder") as refused:
            open_source(folder / "a.ome.tif")
        assert len(str(refused.value)) < 2 * len(str(folder)) + 600
    else:
        with open_source(folder / "a.ome.tif") as source:
            assert any("1 other file, none of them here" in note for note in source.info.notes)


def test_files_of_micro_manager_are_read_by_themselves(folder):
    # its index may name any file, and any number of planes: it is not looked at
    axes, name = b'{"z": 400000000}', b"../victim.tif"
    index = struct.pack("<I", len(axes)) + axes + struct.pack("<I", len(name)) + name
    (folder / "NDTiff.index").write_bytes(index + struct.pack("<IiiiiIii", 256, 16, 16, 0, 0, 0, 0, 0))
    tags = {256: 16, 257: 16, 258: 8, 259: 1, 262: 1, 273: 512, 277: 1, 278: 16, 279: 256}
    head = b"II*\0" + struct.pack("<7I", 64, 483729, 3, 3, 2355492, 2, 0)
    own = struct.pack("<HHII", 51123, 2, 8, 400)
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items()) + own
    page = head.ljust(64, b"\0") + struct.pack("<H", len(tags) + 1) + entries + bytes(4)
    (folder / "a.tif").write_bytes(page.ljust(512, b"\0") + PIXELS[2].tobytes())
    with open_source(folder / "a.tif") as source:
        assert any("made by Micro-Manager" in note for note in source.info.notes)
        np.testing.assert_array_equal(source.read(0, slice(0, 16), slice(0, 16)), PIXELS[2])
