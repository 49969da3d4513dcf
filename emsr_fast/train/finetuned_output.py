"""A finetuned model and its picture: both appear when both are complete."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

from emsr_fast.errors import UsageError, VolumeError
from emsr_fast.io.destination import check_apart, resolved, system_errors
from emsr_fast.model import Emsr
from emsr_fast.model.card import read_own_card
from emsr_fast.model.checkpoint import encoded
from emsr_fast.publish import Staging, refuse_special
from emsr_fast.shield import shielded_from_signals

_PNG = b"\x89PNG"


def picture_beside(model: Path) -> Path:
    """Return where the picture of a model goes: a name that no micrograph has."""
    return model.with_suffix(".finetune.png")


def check_output(path: Path, *, overwrite: bool, inputs: Iterable[Path] = ()) -> Path:
    """Return the absolute path of a model to be, where it and its picture may be written.

    Args:
        inputs: files and folders, which neither of the two may replace or lie in.

    Raises:
        UsageError: it is no .safetensors file, or one of the inputs is in the way.
        VolumeError: the folder is missing or unwritable, or a name is taken.
    """
    if path.suffix != ".safetensors":
        raise UsageError(f"output {path} must end in .safetensors")
    final = resolved(path)
    for source in inputs:
        for place in (final, picture_beside(final)):
            check_apart(source.resolve(), place)
    if not final.parent.is_dir():
        raise VolumeError(f"output folder {final.parent} does not exist; create it first: mkdir -p '{final.parent}'")
    if not os.access(final.parent, os.W_OK | os.X_OK):
        raise VolumeError(f"output folder {final.parent} is not writable; choose another place or mend its permissions")
    for place in (final, picture_beside(final)):
        _check_free(place, overwrite=overwrite)
    return final


def _check_free(place: Path, *, overwrite: bool) -> None:
    if not os.path.lexists(place):
        return
    refuse_special(place)
    if not overwrite:
        raise VolumeError(f"output {place} exists; choose another name or give `overwrite=True`")
    what, known = ("picture", _is_picture) if place.suffix == ".png" else ("model", _is_model)
    # a typing error must not cost a file of other data
    if not place.is_file() or not known(place):
        raise VolumeError(f"output {place} is no {what} of ours: not overwritten; choose another name")


def _is_model(path: Path) -> bool:
    with suppress(Exception):  # whatever a damaged file raises: it is no model then
        read_own_card(path)
        return True
    return False


def _is_picture(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == _PNG


def publish(final: Path, model: Emsr, draw: Callable[[Path], None], *, overwrite: bool) -> None:
    """Write ``model`` to ``final`` and what ``draw`` draws to the PNG beside it; old ones are replaced at the end.

    Raises:
        VolumeError: the disk is full or a name was taken meanwhile; neither is written then.
    """
    free = partial(_check_free, overwrite=overwrite)
    with system_errors(final), ExitStack() as discarded:
        staged = []
        for name in (picture_beside(final), final):
            staged.append(Staging(name, free))
            discarded.callback(staged[-1].discard)
        picture, weights = staged
        weights.path.write_bytes(encoded(model))
        draw(picture.path)
        with shielded_from_signals():
            check_output(final, overwrite=overwrite)
            # the model last: where it is, all is
            picture.publish()
            weights.publish()
