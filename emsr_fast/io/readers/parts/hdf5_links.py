"""What lies in an HDF5 file itself: its library follows links into other files without a word."""

from __future__ import annotations

import h5py


def own(file: h5py.File, name: str) -> h5py.Group | h5py.Dataset | None:
    """Return what is at ``name`` of the file itself, None where nothing is, or a link leads there."""
    place: h5py.Group | h5py.Dataset = file
    for part in name.strip("/").split("/"):
        if not isinstance(place, h5py.Group) or not isinstance(place.get(part, getlink=True), h5py.HardLink):
            return None
        place = place[part]
    return place
