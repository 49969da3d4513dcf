"""Genuine files of microscopes, for the tests; they are not part of the repository."""

import tarfile
from pathlib import Path

import pytest

MICROSCOPES = Path(__file__).parents[3] / "shared" / "data" / "microscopes"
genuine = pytest.mark.skipif(not MICROSCOPES.is_dir(), reason="the genuine files of microscopes are not there")


def unpacked(name, folder):
    """Unpack the file ``name``, and what belongs to it, into ``folder``; return its path."""
    packed = next(MICROSCOPES.glob(f"{Path(name).stem}.*"))
    if packed.suffix == ".gz":
        with tarfile.open(packed) as archive:
            archive.extractall(folder, filter="data")
    else:
        (folder / name).write_bytes(packed.read_bytes())
    return folder / name
