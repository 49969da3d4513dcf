"""The report's folder: checked before the work, filled under a hidden name, renamed when complete."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from emsr_fast.errors import UsageError, VolumeError
from emsr_fast.publish import Staging, refuse_special

_FILES = {"report.html", "report.json", "slices.csv"}


def check_report_folder(path: str | Path, *, overwrite: bool) -> Path:
    """Return the absolute path of a report that may be written there.

    Raises:
        UsageError: the name is that of a file.
        VolumeError: the parent folder is missing, or the place is taken by anything but a report to overwrite.
    """
    final = Path(path).resolve()
    if final.suffix.lower() in (".html", ".htm", ".json", ".csv"):
        raise UsageError(f"output {str(path)!r} names a file, a report is a folder; give {str(Path(path).stem)!r}")
    if not final.parent.is_dir():
        raise VolumeError(f"output folder {final.parent} does not exist; create it first: mkdir -p '{final.parent}'")
    if not final.exists():
        return final
    refuse_special(final)
    if not final.is_dir():
        raise VolumeError(f"output {final} is a file, a report is a folder; choose another name")
    held = {entry.name for entry in final.iterdir()}
    if held and not held <= _FILES:
        raise VolumeError(f"output {final} holds other files ({sorted(held - _FILES)[0]}); choose another name")
    if held and not overwrite:
        raise VolumeError(f"output {final} exists; choose another name or give `overwrite=True`")
    return final


@contextmanager
def report_folder(final: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield an empty hidden folder that becomes ``final`` at the end, and is removed on any error."""
    try:
        with Staging(final, partial(check_report_folder, overwrite=overwrite), folder=True) as folder:
            yield folder
    except OSError as error:
        raise VolumeError(
            f"report {final} cannot be written: {error.strerror}; check the disk and the folder"
        ) from error
