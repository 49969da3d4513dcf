"""Formats that are recognised and not read, so that a message can say what a file or folder holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from emsr_fast.wording import counted

# what files begin with, and where
_BEGINNINGS = (
    (0, b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"BM", "BMP"),
    (0, b"GIF8", "GIF"),
    (8, b"WEBP", "WebP"),
    (0, b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (128, b"DICM", "DICOM"),
    (0, b"CDF\x01", "NetCDF 3"),
    (0, b"CDF\x02", "NetCDF 3"),
    (0, b"\x93NUMPY", "NumPy"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"%PDF", "PDF"),
)
_LONGEST = 352
_NAMED = 3


def kind_of(path: Path) -> str | None:
    """Return the name of the format of a file that is not read, None if it is none of those known."""
    try:
        with path.open("rb") as file:
            begin = file.read(_LONGEST)
    except OSError:
        return None
    return next((name for at, magic, name in _BEGINNINGS if begin[at : at + len(magic)] == magic), None)


def contents_of(folder: Path, entries: Sequence[Path], is_volume: Callable[[Path], bool]) -> str:
    """Return in words what a folder without images holds, and what to do about it.

    Args:
        entries: what lies in it.
        is_volume: whether a file is a whole volume by itself.
    """
    if not entries:
        return f"folder {folder} holds no slices: it is empty; check the path"
    files = [entry for entry in entries if not entry.is_dir()]
    if not files:
        names = ", ".join(sorted(entry.name for entry in entries)[:_NAMED])
        return f"folder {folder} holds {counted(len(entries), 'folder')} and no file; give one of them: {names}"
    suffixes = Counter(entry.suffix.lower() for entry in files).most_common()
    held = [f"{counted(count, 'file')} {f'*{suffix}' if suffix else 'without a suffix'}" for suffix, count in suffixes]
    told = ", ".join(held[:_NAMED]) + (" and others" if len(held) > _NAMED else "")
    first = next(entry for entry in sorted(files) if entry.suffix.lower() == suffixes[0][0])
    advice = "give one of them by itself" if is_volume(first) else "convert them to TIFF, or check the path"
    kind = kind_of(first) if first.is_file() else None
    what = f"{told} ({kind})" if kind else told
    return f"folder {folder} holds no slices, such as PNG, TIFF or DM3 files, but {what}; {advice}"
