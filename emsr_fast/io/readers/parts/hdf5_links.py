"""Objects that are in an HDF5 file itself: the library follows links into other files silently."""

from __future__ import annotations

import h5py


def own(file: h5py.File, name: str) -> h5py.Group | h5py.Dataset | None:
    """Return the object ``name`` of the file itself; None if there is none, or if a link leads to it or to its data."""
    place: h5py.Group | h5py.Dataset = file
    for part in name.strip("/").split("/"):
        if not isinstance(place, h5py.Group) or not isinstance(place.get(part, getlink=True), h5py.HardLink):
            return None
        place = place[part]
    if isinstance(place, h5py.Dataset) and (place.external or place.is_virtual):
        return None
    return place
