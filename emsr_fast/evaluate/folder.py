"""The report's folder: checked before the work, written under a hidden name, renamed when complete."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from emsr_fast.errors import UsageError
from emsr_fast.io.destination import check_output, system_errors
from emsr_fast.publish import Staging

_FILES = {"report.html", "report.json", "slices.csv"}


def check_report_folder(path: str | Path, *, overwrite: bool, inputs: Iterable[str | Path] = ()) -> Path:
    """Return the absolute path of the report, after checking that it may be written.

    Raises:
        UsageError: the name is that of a file, or report and an input overlap.
        VolumeError: the parent folder is missing, or the name is taken and may not be overwritten.
    """
    if Path(path).suffix.lower() in (".html", ".htm", ".json", ".csv"):
        raise UsageError(f"output {str(path)!r} names a file, a report is a folder; give {str(Path(path).stem)!r}")
    return check_output(path, "a report", _is_report, overwrite=overwrite, inputs=inputs, folder=True)


def _is_report(path: Path) -> bool:
    return path.is_dir() and {entry.name for entry in path.iterdir()} <= _FILES


@contextmanager
def report_folder(final: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield an empty hidden folder that becomes ``final`` at the end, and is removed on any error."""
    check = partial(check_report_folder, overwrite=overwrite)
    with system_errors(final), Staging(final, check, folder=True) as folder:
        yield folder
