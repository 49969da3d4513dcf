"""XML in image metadata: a DOCTYPE is refused, in any encoding, so that no entity grows or names a file."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import tifffile

from emsr_fast.io.registry import open_source
from emsr_fast.reading import parse_xml

BOMB = '<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;">]><a>&c;</a>'


@pytest.mark.parametrize(
    ("text", "root"),
    [
        ("<a/>", "a"),
        (b"<a/>", "a"),
        ('<?xml version="1.0" encoding="iso-8859-1"?><a>\u00b5</a>', "a"),
        ("<a><!-- <!DOCTYPE b> --></a>", "a"),
        ("<a/>".encode("utf-16"), "a"),
    ],
)
def test_plain_xml_is_read(text, root):
    assert parse_xml(text).tag == root


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        BOMB.encode(),
        BOMB.encode("utf-16"),
        '<?xml version="1.0"?><!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>',
        "<a>&b;</a>",
        "<a>",
        "",
        b"\xff",
        b'<?xml version="1.0" encoding="nothing-known"?><a/>',
    ],
)
def test_a_doctype_and_damage_are_errors_of_one_kind(text):
    with pytest.raises(ElementTree.ParseError):
        parse_xml(text)


def test_ome_metadata_with_a_doctype_leave_a_plain_tiff(tmp_path):
    pixels = np.arange(3 * 8 * 9, dtype=np.uint8).reshape(3, 8, 9)
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, metadata={"axes": "ZYX", "PhysicalSizeX": 4})
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        text = file.ome_metadata
    begin = text.index("<OME")
    for declared in ("", "<!DOCTYPE OME>"):
        tifffile.imwrite(tmp_path / "b.tif", pixels, photometric="minisblack", metadata=None,
                         description=text[:begin] + declared + text[begin:])  # fmt: skip
        with open_source(tmp_path / "b.tif") as source:
            assert source.shape == pixels.shape
            assert any("DOCTYPE" in note for note in source.info.notes) == bool(declared)
            assert (source.info.voxel_size_nm[2] is None) == bool(declared)
