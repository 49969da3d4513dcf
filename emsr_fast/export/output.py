"""The files that an export writes: their names, and whether what has a name already is an earlier export."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path

from emsr_fast.io.destination import check_output, resolved
from emsr_fast.leftovers import tidy
from emsr_fast.publish import Check, refuse_special
from emsr_fast.reading import parse_json


def checked_names(output: Path, format: str, *, overwrite: bool, model: Path) -> list[tuple[Path, Check]]:
    """Return the absolute path of each file to write, in that order, with the check to repeat when it is written.

    An engine comes last, since it is never without its description, FILE.json.

    Args:
        format: "onnx" or "trt".
        model: the model file, which no output may replace.

    Raises:
        UsageError: an output is the model file.
        VolumeError: the folder is missing or unwritable, or a name is taken.
    """
    final = resolved(output)
    if format == "onnx":
        kinds = [(final, "an ONNX model of emsr_fast", _is_onnx)]
    else:
        kinds = [
            (_beside(final), "the description of an engine", _is_description),
            (final, "an engine with its description beside it", _is_engine),
        ]
    checks: list[tuple[Path, Check]] = []
    for place, what, is_ours in kinds:
        check = partial(check_output, what=what, is_ours=is_ours, overwrite=overwrite, inputs=[model])
        tidy(place)
        refuse_special(place)
        check(place)
        checks.append((place, check))
    return checks


def _is_onnx(path: Path) -> bool:
    import onnx

    with suppress(Exception):  # whatever a parser raises: it is something else
        return bool(onnx.load(path, load_external_data=False).producer_name == "emsr_fast")
    return False


def _is_engine(path: Path) -> bool:
    return path.is_file() and _is_description(_beside(path))


def _is_description(path: Path) -> bool:
    with suppress(OSError, ValueError):
        values = parse_json(path.read_bytes())
        return isinstance(values, dict) and "emsr_fast" in values and values.get("format") == "trt"
    return False


def _beside(engine: Path) -> Path:
    return engine.with_name(f"{engine.name}.json")
