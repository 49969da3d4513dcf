"""Outputs of which a part is done, and ways to damage their files."""

import shutil

OPTIONS = ["--tile=32", "--halo=0", "--max-memory=4MB", "--input-voxel=ignore", "--device=cpu"]
MODES = {"0.5": [], "0.4": ["--ome-zarr=0.4"], "trust": ["--trust"]}


def words_of(folder, *more):
    return ["infer", str(folder / "in.tif"), "-o", str(folder / "out.zarr"), *OPTIONS, *more]


def tree_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def shards_of(volume, level="0"):
    """The files of a level's pixels."""
    found = (path for path in (volume / level).rglob("*") if path.is_file())
    return sorted(path for path in found if not path.name.startswith(("zarr", ".z")))


def empty(path, other):
    path.write_bytes(b"")


def cut(path, other):
    path.write_bytes(path.read_bytes()[:-9])


def flip(path, other):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def flip_index(path, other):
    data = bytearray(path.read_bytes())
    data[-6] ^= 4
    path.write_bytes(data)


def copy_another(path, other):
    shutil.copyfile(other, path)


def remove(path, other):
    path.unlink()


DAMAGES = [empty, cut, flip, flip_index, copy_another, remove]


def options_of(words):
    return {
        "tile": 32, "halo": 0, "max_memory": "4MB", "input_voxel": "ignore", "device": "cpu",
        "trust": "--trust" in words, "ome_zarr": "0.4" if "--ome-zarr=0.4" in words else "0.5",
    }  # fmt: skip
