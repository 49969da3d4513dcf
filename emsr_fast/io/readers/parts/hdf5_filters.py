"""The compression filters of an HDF5 dataset, and those that are missing here."""

from __future__ import annotations

import contextlib
import importlib
import sys
from pathlib import Path

import h5py

from emsr_fast.errors import VolumeError
from emsr_fast.wording import shell

# as the HDF Group has registered them: those that the package hdf5plugin brings, and others
_IN_HDF5PLUGIN = {
    307: "bzip2", 32001: "Blosc", 32004: "LZ4", 32008: "bitshuffle", 32013: "ZFP", 32015: "Zstandard", 32017: "SZ",
    32018: "FCIDECOMP", 32024: "SZ3", 32026: "Blosc2", 32028: "SPERR",
}  # fmt: skip
_OTHERS = {
    4: "SZIP", 305: "LZO", 32000: "LZF", 32009: "SCI-HDF5 LZ4", 32012: "APAX", 32016: "B3D", 32019: "JPEG",
    32022: "Granular BitRound", 32030: "JPEG 2000",
}  # fmt: skip
_LOOKED_AT = 64


def check_filters(data: h5py.Dataset, path: Path) -> None:
    """Raise VolumeError if a dataset needs a filter that is not installed; hdf5plugin is loaded if it is installed.

    Raises:
        VolumeError: which filter is missing, and how to get it.
    """
    if not data.chunks:
        return
    how = data.id.get_create_plist()
    for place in range(how.get_nfilters()):
        code, _, _, stated = how.get_filter(place)
        if _available(code) or not _used(data, place):
            continue
        name = _IN_HDF5PLUGIN.get(code) or _OTHERS.get(code) or stated.decode(errors="replace").strip("\0 ")[:40]
        what = f"{path}: the chunks of {data.name} are compressed with filter {code} ({name or 'of no known name'})"
        if code in _IN_HDF5PLUGIN:
            install = shell(sys.executable, "-m", "pip", "install", "hdf5plugin")
            raise VolumeError(f"{what}, which needs a plugin: {install}")
        raise VolumeError(
            f"{what}, which this HDF5 library lacks and hdf5plugin has not: get the plugin from its makers, name its "
            "folder in HDF5_PLUGIN_PATH, or write the file again with gzip"
        )


def _available(code: int) -> bool:
    if h5py.h5z.filter_avail(code):
        return True
    with contextlib.suppress(ImportError):
        importlib.import_module("hdf5plugin")  # adds its filters to those of h5py
    return bool(h5py.h5z.filter_avail(code))


def _used(data: h5py.Dataset, place: int) -> bool:
    """Return whether one of the first chunks used the filter: chunks may be without an optional one."""
    chunks = range(min(data.id.get_num_chunks(), _LOOKED_AT))
    return not chunks or any(not data.id.get_chunk_info(number).filter_mask >> place & 1 for number in chunks)
