"""The libraries of the extra ``formats``, loaded where a file needs one."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from emsr_fast.errors import EmsrError, VolumeError
from emsr_fast.installing import install_line

EXTRA = "formats"
# what each package is for, and the module that it brings
PACKAGES = {
    "nibabel": ("NIfTI", "nibabel"),
    "pynrrd": ("NRRD", "nrrd"),
    "pylibCZIrw": ("CZI", "pylibCZIrw"),
    "nd2": ("ND2", "nd2"),
    "wkw": ("WEBKNOSSOS in WKW files", "wkw"),
}


@contextmanager
def needed(package: str, path: Path) -> Iterator[None]:
    """Import ``package``, which reads ``path``, in the block.

    Raises:
        VolumeError: it is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise VolumeError(
            f"{path} is {PACKAGES[package][0]}, which needs the extra emsr-fast[{EXTRA}]: {package} is not installed; "
            f"install it with: {install_line(EXTRA)}"
        ) from error


def why_not_read(package: str) -> str | None:
    """Return why files of a kind cannot be read here; None if they can."""
    _, module = PACKAGES[package]
    found = importlib.util.find_spec(module) is not None
    return None if found else f"{package} is not installed: {install_line(EXTRA)}"


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Turn whatever a library raises on a damaged file into one error that names the file.

    Raises:
        VolumeError: the block failed.
    """
    try:
        yield
    except (EmsrError, MemoryError):
        raise
    except Exception as error:  # each library has its own
        reason = " ".join(f"{error}".split()) or type(error).__name__
        raise VolumeError(f"{path} cannot be read as {kind}: {reason}; copy or export it again") from error
