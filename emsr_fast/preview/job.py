"""One place of a volume as LR, bicubic, SR and trust, in memory, in seconds."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emsr_fast.callbacks import Say
from emsr_fast.errors import UsageError, VolumeError
from emsr_fast.infer.array import Result, compute
from emsr_fast.infer.fingerprint import of_model
from emsr_fast.infer.prepare import plan_for, say_input
from emsr_fast.infer.run import EngineOptions
from emsr_fast.infer.trust_maps import described_trust, prepare_trust
from emsr_fast.infer.worker import load_engine, load_network
from emsr_fast.io.intensity import Normalisation, for_model, parse_range
from emsr_fast.io.pixel_size import fit_to_model, parse_input_voxel
from emsr_fast.io.registry import open_source
from emsr_fast.io.resize import bicubic
from emsr_fast.io.selection import Span, parse_roi
from emsr_fast.io.volume import SourceVolume
from emsr_fast.io.voxels import VoxelSize
from emsr_fast.trust.maps import Trust

REGION_PX = 256  # side of the middle of a slice that is shown, LR px
_CONTEXT_PX = 4  # around the region: what bicubic interpolation sees beyond it, and more


@dataclass(frozen=True)
class Preview:
    """One region of one slice; images have the grey values of the volume."""

    source: str  # name of the file
    model: str
    z: int
    rows: Span  # LR px of the slice, as are the columns
    cols: Span
    scale: int
    voxel_size_nm: VoxelSize  # of the LR pixels
    low: np.ndarray  # (h, w)
    bicubic: np.ndarray  # (scale * h, scale * w) float32
    high: np.ndarray  # (scale * h, scale * w)
    trust: np.ndarray | None  # (scale * h, scale * w) float32, grey values; None where it was left out
    trust_name: str  # of the map; why there is none where it was left out


def make_preview(
    path: str | Path,
    *,
    slice_number: int | None = None,
    roi: str | None = None,
    key: str | None = None,
    axes: str | None = None,
    channel: int | None = None,
    keep_data_bar: bool = False,
    input_voxel: str | None = None,
    model: str | Path | None = None,
    intensity_range: str | None = None,
    device: str = "auto",
    with_trust: bool = True,
    say: Say = lambda line: None,
    progress: Callable[[int], AbstractContextManager[Callable[[int], None]]] = lambda px: nullcontext(
        lambda done: None
    ),
) -> Preview:
    """Return LR, bicubic, SR and trust of one place; SR has the pixels of ``infer`` with that ``roi``.

    Args:
        path: anything ``open_source`` reads.
        slice_number: counted from 0; the middle one if None.
        roi: "Z,Y,X:Z,Y,X" in input voxels, one slice deep; the middle of the slice, up to 256 px a side, if None.
        with_trust: whether to make the map of trust: nine runs of the network instead of one.
        say: called with each line about input and model.
        progress: as that of ``infer``.

        The other arguments are those of ``infer``.

    Raises:
        UsageError: the arguments contradict each other or the volume, or its pixel size is not the model's.
        VolumeError: the volume or the slice cannot be read.
        CheckpointError: the model file cannot be used.
        BackendError: the device is not there, or the network failed on it.
    """
    if slice_number is not None and roi is not None:
        raise UsageError("`slice` and `roi` are both given; the first number of each corner of `roi` says the slice")
    choice = parse_input_voxel(input_voxel)
    with open_source(path, key, axes, channel, keep_data_bar) as stored:
        given = parse_range(intensity_range, stored.dtype) if intensity_range else None
        say_input(stored.info, say)
        network = load_network(model, None, EngineOptions(device=device))
        source = fit_to_model(stored, network.card.lr_pixel_nm, network.card.name, choice, say)
        z, rows, cols = _place(source.shape, slice_number, roi)
        grey = for_model(source, network.card, given)
        say(f"grey    {grey.describe()}")
        if grey.note:
            say(f"note    {grey.note}")
        trust, why = None, "not asked for"
        if with_trust:
            trust, why = _trust(source, grey, model, of_model(network).sha256)
        say(f"trust   {described_trust(trust) if trust else f'left out: {why}'}")
        plan = plan_for(network, source, ((z, z + 1), rows, cols), trust=trust is not None)
        engine, _ = load_engine(network, plan, EngineOptions(device=device))
        say(f"model   {network.card.name}, x{plan.scale}; engine {engine.name}")
        say(f"region  slice {z}, rows {rows[0]}:{rows[1]}, columns {cols[0]}:{cols[1]} of {source.shape[1:]}")
        result = Result.empty(plan, source.dtype, trust)
        with progress(plan.lr_pixels) as done:
            compute(source, engine, plan, grey, result, trust=trust, progress=done)
        if result.bounded:
            say(f"note    {grey.told_bounded(result.bounded, resampled=source is not stored)}")
        # the expected error where the model has a calibration, else how far the runs disagree
        name = "" if trust is None else trust.names[0]
        return Preview(
            source=source.info.path.name,
            model=network.card.name,
            z=z,
            rows=rows,
            cols=cols,
            scale=plan.scale,
            voxel_size_nm=source.info.voxel_size_nm,
            low=source.read(z, slice(*rows), slice(*cols)),
            bicubic=_bicubic(source, z, rows, cols, plan.scale),
            high=result.image[0],
            trust=result.maps[name][0] if name else None,
            trust_name=name or why,
        )


def _place(shape: tuple[int, int, int], number: int | None, roi: str | None) -> tuple[int, Span, Span]:
    depth, height, width = shape
    if roi is not None:
        (first, last), rows, cols = parse_roi(roi, shape)
        if last - first != 1:
            raise UsageError(
                f"`roi` {roi!r} has {last - first} slices, and a preview shows one; make its first numbers z and z+1"
            )
        return first, rows, cols
    z = depth // 2 if number is None else number
    if not 0 <= z < depth:
        raise UsageError(f"`slice` is {z}, and the volume has slices 0 to {depth - 1}; give one of them")
    return z, _middle(height), _middle(width)


def _middle(side: int) -> Span:
    first = max(0, (side - REGION_PX) // 2)
    return first, min(side, first + REGION_PX)


def _trust(
    source: SourceVolume, grey: Normalisation, model: str | Path | None, sha256: str
) -> tuple[Trust | None, str]:
    """Return noise and calibration for the map of trust, or None and the reason."""
    try:
        return prepare_trust(source, grey, model, sha256), ""
    except VolumeError as error:
        return None, str(error)


def _bicubic(source: SourceVolume, z: int, rows: Span, cols: Span, scale: int) -> np.ndarray:
    """Return the region enlarged; pixels around it are used, so its edges are those of the enlarged slice."""
    outer = [
        slice(max(0, first - _CONTEXT_PX), min(side, last + _CONTEXT_PX))
        for (first, last), side in zip((rows, cols), source.shape[1:], strict=True)
    ]
    inner = tuple(
        slice((first - part.start) * scale, (last - part.start) * scale)
        for (first, last), part in zip((rows, cols), outer, strict=True)
    )
    return bicubic(source.read(z, *outer), scale)[inner]
