"""A preview as a file. Its path is checked before the work, and nothing is replaced unless asked for."""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from emsr_fast.errors import UsageError
from emsr_fast.io.destination import check_folder, check_output, resolved, system_errors
from emsr_fast.io.formats import PNG_MAGIC, begins_with
from emsr_fast.io.locations import within
from emsr_fast.leftovers import tidy
from emsr_fast.preview.job import make_preview
from emsr_fast.preview.sheet import draw_preview
from emsr_fast.publish import write_file


def write_preview(
    input_path: str | Path, output: str | Path | None = None, *, overwrite: bool = False, **options: Any
) -> dict[str, Any]:
    """Write a preview of the volume at ``input_path`` as a PNG; return its path and what it shows, as JSON values.

    Args:
        output: the PNG. If None, NAME_sliceN.png in the working folder, or the next free name.
        overwrite: whether ``output`` may be replaced.
        options: see ``make_preview``.

    Raises:
        UsageError: ``output`` is no PNG or the input itself, and what ``make_preview`` raises.
        VolumeError: ``output`` exists or cannot be written, and what ``make_preview`` raises.
    """
    container, _ = within(Path(input_path))
    if output is not None:
        tidy(resolved(output))
    final = None if output is None else _check_png(output, overwrite=overwrite, inputs=[container])
    # before the network runs: a folder that cannot be written to is known now
    check_folder(Path.cwd() if final is None else final.parent)
    preview = make_preview(input_path, **options)
    file = io.BytesIO()
    draw_preview(preview).save(file, format="PNG")
    name = f"{container.name.split('.')[0] or 'preview'}_slice{preview.z}"
    written = (
        _write_new(name, file.getvalue()) if final is None else _write(final, file.getvalue(), overwrite=overwrite)
    )
    return {
        "output": str(written),
        "slice": preview.z,
        "rows": list(preview.rows),
        "columns": list(preview.cols),
        "model": preview.model,
        "trust": preview.trust_name if preview.trust is not None else None,
    }


def _check_png(output: str | Path, *, overwrite: bool, inputs: Iterable[Path] = ()) -> Path:
    if Path(output).suffix.lower() != ".png":
        raise UsageError(f"`output` is {str(output)!r}; a preview is a PNG: give a name that ends in .png")
    return check_output(output, "a PNG", _is_png, overwrite=overwrite, inputs=inputs)


def _is_png(path: Path) -> bool:
    return begins_with(path, (PNG_MAGIC,))


def _write(final: Path, content: bytes, *, overwrite: bool) -> Path:
    with system_errors(final):
        write_file(final, content, partial(_check_png, overwrite=overwrite))
    return final


def _write_new(name: str, content: bytes) -> Path:
    """Write into the working folder, under ``name``.png or the first of ``name``-2.png, ``name``-3.png that is free."""
    for number in itertools.count(1):
        final = Path.cwd() / (f"{name}.png" if number == 1 else f"{name}-{number}.png")
        if not os.path.lexists(final):
            break
    return _write(final, content, overwrite=False)
