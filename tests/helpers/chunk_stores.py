"""Small volumes in every format that is made of chunks, and the files of their chunks."""

import h5py
import numpy as np
import tensorstore
import zarr

PIXELS = np.random.default_rng(0).integers(1, 255, (6, 48, 56)).astype(np.uint8)
CHUNK = (2, 16, 16)  # 3 x 3 x 4 = 36 chunks
MADE_OF_CHUNKS = ("zarr2", "zarr3", "shards", "n5", "precomputed", "hdf5")


def make(kind, path, pixels=PIXELS):
    """Write ``pixels``; of None, no chunk at all."""
    if kind == "hdf5" or kind == "hdf5 in one piece":
        with h5py.File(path, "w") as file:
            chunks = CHUNK if kind == "hdf5" else None
            data = file.create_dataset("raw", PIXELS.shape, "u1", chunks=chunks, fillvalue=9)
            if pixels is not None:
                data[:] = pixels
    elif kind in ("n5", "precomputed"):
        tensorstored(kind, path, pixels)
    else:
        sharded = {"shards": (2, 16, 56), "chunks": (1, 8, 8)} if kind == "shards" else {"chunks": CHUNK}
        array = zarr.create_array(path, shape=PIXELS.shape, dtype="u1", fill_value=9, **sharded,
                                  zarr_format=2 if kind == "zarr2" else 3)  # fmt: skip
        if pixels is not None:
            array[:] = pixels
    return path


def tensorstored(kind, path, pixels, offset=(10, 20, 30), **scale):
    where = {"driver": "file", "path": str(path)}
    if kind == "n5":
        more = {"metadata": {"dimensions": PIXELS.shape[::-1], "blockSize": CHUNK[::-1], "dataType": "uint8",
                             "compression": {"type": "raw"}}}  # fmt: skip
    else:
        more = {"multiscale_metadata": {"type": "image", "data_type": "uint8", "num_channels": 1},
                "scale_metadata": {"size": PIXELS.shape[::-1], "encoding": "raw", "chunk_size": CHUNK[::-1],
                                   "resolution": [8, 8, 33], "voxel_offset": offset, **scale}}  # fmt: skip
    driver = "n5" if kind == "n5" else "neuroglancer_precomputed"
    array = tensorstore.open({"driver": driver, "kvstore": where, "create": True, **more}).result()
    if pixels is not None:
        array[...] = pixels.T if kind == "n5" else pixels.T[..., None]


def chunk_files(path):
    names = ("zarr.json", ".zarray", ".zattrs", "attributes.json", "info")
    return sorted(file for file in path.rglob("*") if file.is_file() and file.name not in names)


def read(source):
    return np.stack([source.read(z, slice(None), slice(None)) for z in range(source.shape[0])])
