"""A finetuned model and its picture: both appear when both are complete."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

from emsr_fast.errors import UsageError
from emsr_fast.io.destination import check_output, resolved, system_errors
from emsr_fast.io.formats import PNG_MAGIC, begins_with
from emsr_fast.model import Emsr
from emsr_fast.model.card import read_own_card
from emsr_fast.model.checkpoint import encoded
from emsr_fast.publish import Staging, refuse_special
from emsr_fast.shield import shielded_from_signals


def picture_beside(model: Path) -> Path:
    """Return the path of a model's picture; no micrograph has such a name."""
    return model.with_suffix(".finetune.png")


def check_names(path: Path, *, overwrite: bool, inputs: Iterable[Path] = ()) -> Path:
    """Return the absolute path of the model file, after checking that it and its picture may be written.

    Args:
        inputs: files and folders; neither output may replace one or lie in one.

    Raises:
        UsageError: it does not end in .safetensors, or would replace an input or lie in one.
        VolumeError: the folder is missing or unwritable, or a name is taken.
    """
    if path.suffix != ".safetensors":
        raise UsageError(f"output {path} must end in .safetensors")
    final = resolved(path)
    refuse_special(picture_beside(final))
    for place in (path, picture_beside(final)):
        _check(place, overwrite=overwrite, inputs=inputs)
    return final


def _check(place: Path, *, overwrite: bool, inputs: Iterable[Path] = ()) -> Path:
    what, known = ("a picture", _is_picture) if place.suffix == ".png" else ("a model of emsr_fast", _is_model)
    return check_output(place, what, known, overwrite=overwrite, inputs=inputs)


def _is_model(path: Path) -> bool:
    with suppress(Exception):  # whatever a damaged file raises: it is no model then
        read_own_card(path)
        return True
    return False


def _is_picture(path: Path) -> bool:
    return begins_with(path, (PNG_MAGIC,))


def publish(final: Path, model: Emsr, draw: Callable[[Path], None], *, overwrite: bool) -> None:
    """Write ``model`` to ``final`` and what ``draw`` draws to the PNG beside it; old ones are replaced at the end.

    Raises:
        VolumeError: the disk is full or a name was taken meanwhile; neither is written then.
    """
    free = partial(_check, overwrite=overwrite)
    with system_errors(final), ExitStack() as discarded:
        staged = []
        for name in (picture_beside(final), final):
            staged.append(Staging(name, free))
            discarded.callback(staged[-1].discard)
        picture, weights = staged
        weights.path.write_bytes(encoded(model))
        draw(picture.path)
        with shielded_from_signals():
            check_names(final, overwrite=overwrite)
            # the model last: where it is, all is
            picture.publish()
            weights.publish()
