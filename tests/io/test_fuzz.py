"""Damaged headers: a clear error or pixels, never a crash, ten seconds or two gigabytes."""

import json
import os
import shutil
import struct
import subprocess
import sys
from functools import partial
from pathlib import Path

import h5py
import mrcfile
import numpy as np
import pytest
import scipy.io
import tifffile
import zarr

from dm_files import image, thumbnail, write_dm
from emd_files import ncem, velox
from jeiss_files import write_jeiss
from nd2_files import write_nd2
from ser_files import write_ser
from vendor_tiffs import (
    fei_ini,
    fibics_xml,
    orion_xml,
    phenom_xml,
    sightx_xml,
    sis_tag,
    tescan_tag,
    thermo_xml,
    tia_xml,
    tvips_tag,
    vendor_tiff,
)

CHILD = Path(__file__).with_name("fuzz_child.py")
MUTANTS = int(os.environ.get("EMSR_FUZZ_MUTANTS", "20"))  # of each kind of file
PIXELS = np.random.default_rng(0).integers(0, 255, (5, 20, 24)).astype(np.uint8)
STEPS = ((30.0, "nm"), (4.0, "nm"), (4.0, "nm"))
NUMBERS = [0, 1, 2, 3, 7, 255, 256, 1023, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1]
JSON_VALUES = [0, -1, 1, 3, 2**31, 2**63, 10**30, 1e308, "", "x", "nan", None, True, [], {}, [0], ["../../a"], "../a"]


def tiff(path, data=PIXELS, **options):
    tifffile.imwrite(path, data, **({"photometric": "minisblack"} | options))


def hdf5(path, **options):
    with h5py.File(path, "w") as file:
        file.create_dataset("raw", data=PIXELS, **options).attrs["element_size_um"] = (0.03, 0.01, 0.01)


def matlab73(path):
    with h5py.File(path, "w", userblock_size=512) as file:
        file.create_dataset("raw", data=PIXELS).attrs["MATLAB_class"] = np.bytes_("uint8")
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64")


def mrc(path, extended=False):
    with mrcfile.new(path) as file:
        file.set_data(PIXELS.astype(np.int16))
        file.voxel_size = 40
        if extended:
            file.set_extended_header(np.frombuffer(bytes(160), "V160"))


def ome(path, zarr_format):
    axes = [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]
    level = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [30.0, 4.0, 4.0]}]}
    multiscale = {"axes": axes, "datasets": [level]}
    attributes = {"ome": {"version": "0.5", "multiscales": [multiscale]}}
    if zarr_format == 2:
        attributes = {"multiscales": [{**multiscale, "version": "0.4"}]}
    zarr.create_group(path, zarr_format=zarr_format, attributes=attributes).create_array("0", data=PIXELS)


FILES = {
    "plain.tif": tiff,
    "tiled.tif": lambda path: tiff(path, tile=(16, 16), compression="zlib", predictor=True),
    "imagej.tif": lambda path: tiff(path, imagej=True, photometric=None, metadata={"axes": "ZYX", "unit": "um"}),
    "ome.tif": lambda path: tiff(path, ome=True, bigtiff=True, metadata={"axes": "ZYX", "PhysicalSizeX": 0.01}),
    "chunked.h5": lambda path: hdf5(path, chunks=(2, 8, 8), compression="gzip"),
    "contiguous.h5": hdf5,
    "plain.mrc": mrc,
    "extended.mrc": lambda path: mrc(path, extended=True),
    "v5.mat": lambda path: scipy.io.savemat(path, {"raw": PIXELS, "x": 1.0}),
    "v7.mat": lambda path: scipy.io.savemat(path, {"raw": PIXELS}, do_compression=True),
    "v73.mat": matlab73,
    "big-endian.dm3": lambda path: write_dm(path, thumbnail(), image(PIXELS, steps=STEPS), version=3, order=">"),
    "little-endian.dm4": lambda path: write_dm(path, thumbnail(), image(PIXELS, steps=STEPS)),
    "velox.emd": lambda path: velox(path, PIXELS),
    "ncem.emd": lambda path: ncem(path, PIXELS, [([0, 30], "z", "nm"), ([0, 4], "y", "nm"), ([0, 4], "x", "nm")]),
    "version1.emd": lambda path: ncem(path, PIXELS, [((0, 4), name, "A") for name in "zyx"], version=1),
    "jeiss.dat": lambda path: write_jeiss(path, PIXELS[0, ..., None]),
    "0x210.ser": lambda path: write_ser(path, PIXELS, version=0x210),
    "0x220.ser": lambda path: write_ser(path, PIXELS, planned=9),
}


def nifti(path):
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.Nifti1Image(PIXELS.T, np.diag([4e-6, 4e-6, 3e-5, 1]))
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)


def nrrd(path, **header):
    pytest.importorskip("nrrd").write(str(path), PIXELS, {"spacings": [4, 4, 30], "units": ["nm"] * 3, **header})


def czi(path):
    with pytest.importorskip("pylibCZIrw.czi").create_czi(str(path)) as file:
        for z, plane in enumerate(PIXELS):
            for column in (0, 12):
                tile = np.ascontiguousarray(plane[:, column : column + 12, None])
                file.write(tile, plane={"C": 0, "Z": z, "T": 0}, location=(column, 0))
        file.write_metadata("a test", scale_x=4e-9, scale_y=4e-9, scale_z=3e-8)


def nd2(path):
    pytest.importorskip("nd2")
    write_nd2(path, PIXELS[..., None])


# read with the libraries of the extra "formats"
EXTRA = {
    "mosaic.czi": czi,
    "one.nd2": nd2,
    "one.nii": nifti,
    "packed.nii.gz": nifti,
    "raw.nrrd": lambda path: nrrd(path, encoding="raw"),
    "packed.nrrd": lambda path: nrrd(path, encoding="gzip"),
}

VENDORS = {
    "fei.tif": [(34682, fei_ini()), (34683, thermo_xml())],
    "tia.tif": [(34682, tia_xml()), (65450, (2500000, 1)), (65451, (2000000, 1)), (65452, 3)],
    "zeiss.tif": [(65000, orion_xml()), (34118, "\r\nAP_IMAGE_PIXEL_SIZE\r\nImage Pixel Size = 5.582 nm\r\n")],
    "tescan.tif": [(50431, tescan_tag(6))],
    "tvips.tif": [(37706, tvips_tag())],
    "micrograph.tif": [(65003, "nm"), (65004, "nm"), (65009, 4.0), (65010, 5.0)],
    "phenom.tif": [(34683, phenom_xml(6))],
    "olympus.tif": [(33560, sis_tag()[0] + struct.pack("<hhI", 1, 1, 600) + sis_tag()[1])],
}
FILES |= EXTRA
FILES |= {name: partial(vendor_tiff, tags=tags) for name, tags in VENDORS.items()}
# palettes and channels, too
RAMP = np.tile(np.arange(256, dtype=np.uint16) * 256, (3, 1))
FIBICS = {"tags": [(51023, fibics_xml())], "photometric": "palette", "colormap": RAMP}
FILES["palette.tif"] = partial(vendor_tiff, **FIBICS)
FILES["sightx.tif"] = partial(vendor_tiff, tags=[(271, "JEOL Ltd.")], description=sightx_xml(), resolution=(100, 100))


def beside(path):
    """Write a TIFF with a text of Hitachi beside it, which is then damaged instead of the TIFF."""
    vendor_tiff(path)
    path.with_suffix(".txt").write_text("[SemImageFile]\r\nInstructName=S\r\nPixelSize=4.8\r\nDataSize=32x30\r\n")


FILES["hitachi.tif"] = beside
FILES["rgba.tif"] = lambda path: tiff(path, data=np.repeat(PIXELS[..., None] // 255, 4, axis=-1), photometric="rgb")


def n5(path):
    tensorstore = pytest.importorskip("tensorstore")
    metadata = {"dimensions": [24, 20, 5], "blockSize": [8, 8, 4], "dataType": "uint8", "compression": {"type": "gzip"}}
    spec = {"driver": "n5", "kvstore": {"driver": "file", "path": str(path)}, "metadata": metadata, "create": True}
    tensorstore.open(spec).result()[...] = PIXELS.T


def precomputed(path):
    tensorstore = pytest.importorskip("tensorstore")
    spec = {
        "driver": "neuroglancer_precomputed",
        "kvstore": {"driver": "file", "path": str(path)},
        "multiscale_metadata": {"type": "image", "data_type": "uint8", "num_channels": 1},
        "scale_metadata": {"size": [24, 20, 5], "encoding": "raw", "chunk_size": [8, 8, 4], "resolution": [4, 4, 30]},
        "create": True,
    }
    tensorstore.open(spec).result()[...] = PIXELS.T[..., None]


def webknossos(path):
    wkw = pytest.importorskip("wkw")
    header = wkw.Header(np.uint8, block_len=8, file_len=4, block_type=2)
    with wkw.Dataset.create(str(path / "color" / "1"), header) as file:
        file.write((0, 0, 0), np.asfortranarray(np.pad(PIXELS, [(0, 27), (0, 12), (0, 8)]).T))
    layer = {"name": "color", "category": "color", "elementClass": "uint8", "dataFormat": "wkw", "numChannels": 1}
    layer["boundingBox"] = {"topLeft": [0, 0, 0], "width": 24, "height": 20, "depth": 5}
    layer["mags"] = [{"mag": [1, 1, 1], "path": "./color/1"}]
    properties = {"dataLayers": [layer], "scale": {"factor": [4, 4, 30], "unit": "nanometer"}, "version": 1}
    (path / "datasource-properties.json").write_text(json.dumps(properties))


FOLDERS = {
    "webknossos": webknossos,
    "plain.n5": n5,
    "precomputed": precomputed,
    "plain2.zarr": lambda path: zarr.create_array(path, data=PIXELS, chunks=(2, 16, 16), zarr_format=2),
    "sharded.zarr": lambda path: zarr.create_array(path, data=PIXELS, chunks=(1, 8, 8), shards=(2, 16, 16)),
    "ome4.zarr": lambda path: ome(path, 2),
    "ome5.zarr": lambda path: ome(path, 3),
}


def damaged(content, rng):
    """Return ``content`` with some bytes changed, mostly near its ends, where headers are; or cut."""
    content = bytearray(content) + bytes(max(0, 8 - len(content)))
    if rng.random() < 0.1:
        return content[: rng.integers(1, len(content))]
    for _ in range(rng.integers(1, 4)):
        near = min(len(content), int(rng.choice([64, 600, 1500, len(content)])))
        at = int(rng.integers(0, near))
        at = at if rng.random() < 0.7 else len(content) - 1 - at
        kind = rng.integers(0, 4)
        if kind == 0:
            content[at] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            content[at] = int(rng.choice([0, 1, 127, 128, 255]))
        else:
            size = "<I" if kind == 2 else rng.choice(["<H", ">I", "<Q"])
            at = min(at - at % 2, len(content) - 8)
            struct.pack_into(size, content, max(at, 0), int(rng.choice(NUMBERS)) % 2 ** (8 * struct.calcsize(size)))
    return content


def changed(values, rng):
    """Replace or remove one value, at any depth, of a tree of JSON."""
    places = []

    def walk(node):
        for name in node if isinstance(node, dict) else range(len(node)):
            places.append((node, name))
            if isinstance(node[name], (dict, list)):
                walk(node[name])

    walk(values)
    if not places:
        return
    node, name = places[rng.integers(0, len(places))]
    if rng.random() < 0.15:
        del node[name]
    else:
        node[name] = JSON_VALUES[rng.integers(0, len(JSON_VALUES))]


def mutants(folder, name, rng):
    """Yield paths of damaged copies of one kind of volume."""
    original = folder / name
    (FILES | FOLDERS)[name](original)
    for number in range(MUTANTS):
        copy = folder / f"{number}.{name}"
        if (text := original.with_suffix(".txt")).exists():
            shutil.copy(original, copy)
            copy.with_suffix(".txt").write_bytes(damaged(text.read_bytes(), rng))
        elif original.is_file():
            copy.write_bytes(damaged(original.read_bytes(), rng))
        else:
            shutil.copytree(original, copy)
            files = sorted(file for file in copy.rglob("*") if file.is_file())
            headers = [file for file in files if file.suffix == ".json" or file.name.startswith((".z", "info"))]
            file = headers[rng.integers(0, len(headers))] if rng.random() < 0.85 else files[rng.integers(0, len(files))]
            if file in headers and rng.random() < 0.8:
                values = json.loads(file.read_text())
                changed(values, rng)
                file.write_text(json.dumps(values))
            else:
                file.write_bytes(damaged(file.read_bytes(), rng))
        yield copy


@pytest.mark.parametrize("name", [*FILES, *FOLDERS])
def test_damaged_headers_are_refused_or_read(tmp_path, name):
    rng = np.random.default_rng([int(os.environ.get("EMSR_FUZZ_SEED", "0")), *name.encode()])
    paths = [str(path) for path in mutants(tmp_path, name, rng)]
    result = subprocess.run([sys.executable, CHILD, *paths], capture_output=True, text=True)
    lines = result.stdout.splitlines()
    last = lines[-2:] if result.returncode else []
    if keep := os.environ.get("EMSR_FUZZ_KEEP"):
        culprits = [lines[n - 1].split()[1] for n, line in enumerate(lines) if line.startswith("failed")]
        for path in [*culprits, *([lines[-1].split()[1]] if last and lines[-1].startswith("begin") else [])]:
            target = Path(keep) / Path(path).name
            (shutil.copytree if Path(path).is_dir() else shutil.copy)(path, target)
    assert result.returncode == 0, (last, result.stderr[-2000:])
    assert not [line for line in lines if line.startswith("failed")]
    outcomes = [line.split()[0] for line in lines if not line.startswith(("begin", "peak"))]
    assert len(outcomes) == MUTANTS
    assert set(outcomes) <= {"read", "refused"}
    peak = int(lines[-1].split()[1])
    assert peak < 2048
