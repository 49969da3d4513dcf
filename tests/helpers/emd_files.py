"""Writes EMD files as Velox and NCEM's tools do, for the tests of their reader."""

import json

import h5py
import numpy as np


def velox(path, *stacks, pixel=("2e-9", "3e-9"), unit="m", detectors=("HAADF", "DF2"), metadata=None, instrument=None):
    """Write a file as Velox does: frames last, metadata as a column of bytes for each frame."""
    with h5py.File(path, "w") as file:
        file["Version"] = np.array([json.dumps({"format": "Velox", "version": "1.0.0"})], dtype=h5py.string_dtype())
        for number, stack in enumerate(stacks):
            group = file.create_group(f"Data/Image/{number:032x}")
            group["Data"] = np.moveaxis(stack, 0, -1)
            group["FrameLookupTable"] = np.zeros((len(stack), 2), "u8")
            known = {
                "Instrument": instrument or {},
                "BinaryResult": {
                    "Detector": detectors[number],
                    "PixelSize": {"height": pixel[0], "width": pixel[1]},
                    "PixelUnitX": unit,
                    "PixelUnitY": unit,
                },
            }
            text = json.dumps(known).encode() if metadata is None else metadata
            column = np.frombuffer(text.ljust(4000, b"\0"), "u1")
            group["Metadata"] = np.repeat(column[:, None], len(stack), 1)
        file["Data/Spectrum/0/Data"] = np.zeros((40, 2), "u4")
    return path


def ncem(path, stack, dims, *, version=0, instrument=None):
    """Write a file as NCEM's tools do, or in version 1 as py4DSTEM's.

    Args:
        dims: a vector, a name and units for each axis.
    """
    with h5py.File(path, "w") as file:
        file.attrs.update(version_major=version, version_minor=0 if version else 2)
        group = file.create_group("data/scan")
        group.attrs["emd_group_type"] = "array" if version else 1
        group["data"] = stack
        if instrument:
            file.create_group("microscope").attrs.update(instrument)
        for axis, (values, name, units) in enumerate(dims, 0 if version else 1):
            group[f"dim{axis}"] = np.asarray(values, "f4")
            group[f"dim{axis}"].attrs.update(name=name, units=units)
        file["user/notes"] = np.zeros((30, 30))
    return path
