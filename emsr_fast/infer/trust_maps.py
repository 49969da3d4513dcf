"""The maps of trust as volumes: OUT.zarr/trust/NAME in an OME-Zarr output, OUT.trust-NAME.tif beside other formats."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import zarr

from emsr_fast.errors import VolumeError
from emsr_fast.infer.plan import Plan
from emsr_fast.infer.run import Run
from emsr_fast.io.formats import output_format
from emsr_fast.io.intensity import Normalisation
from emsr_fast.io.selection import ZYX
from emsr_fast.io.volume import SourceVolume, TargetSpec
from emsr_fast.io.voxels import multiplied
from emsr_fast.io.writers.multiscale import Level, levels_of
from emsr_fast.io.writers.ome_zarr import DurableStore, Put, Pyramid, metadata_files
from emsr_fast.metrics.noise import noise_of
from emsr_fast.trust.calibration import calibration_path, read_calibration
from emsr_fast.trust.maps import MAPS, RESIDUAL, Trust

GROUP = "trust"
BYTES_PER_HR_PX = 2 * 4  # two float32 maps; the residual has the input's few pixels
_SLICES, _SIDE = 8, 1024  # of the input, from which its noise is measured


def prepare_trust(source: SourceVolume, grey: Normalisation, model: str | Path | None, sha256: str) -> Trust:
    """Return the noise of ``source`` and the model's calibration, if it has one: the maps depend on both.

    Args:
        model: name or file, as asked for; None is the default.
        sha256: of the network's weights.

    Raises:
        VolumeError: the noise cannot be measured.
        CheckpointError: the calibration is damaged, or of other weights.
    """
    from emsr_fast.model.zoo import DEFAULT_MODEL, model_path

    noise = noise_of(_sampled(source, grey), str(source.info.path))
    path = calibration_path(model_path(DEFAULT_MODEL if model is None else model))
    # rounding to integers is noise too, and all that there is in an image without any
    step = 1 / (grey.high - grey.low) if source.dtype.kind in "ui" else 0.0
    return Trust(
        gain=noise.gain / 255,
        offset=max(noise.offset / 255**2, step**2 / 12),
        calibration=read_calibration(path, sha256) if path.exists() else None,
    )


def _sampled(source: SourceVolume, grey: Normalisation) -> Iterator[np.ndarray]:
    depth, height, width = source.shape
    rows, cols = (slice(max(0, (side - _SIDE) // 2), (side + _SIDE) // 2) for side in (height, width))
    for z in np.unique(np.linspace(0, depth - 1, min(depth, _SLICES)).round().astype(int)):
        try:
            image = grey.to_model(source.read(int(z), rows, cols))
        except VolumeError:
            continue  # the prediction reports it
        if np.isfinite(image).all():
            yield image


def described_trust(trust: Trust) -> str:
    """Return in words the noise and the calibration."""
    sigma = 255 * float(trust.sigma(np.full(1, 0.5, np.float32))[0])
    known = "this model is not calibrated: maps of disagreement and residual only, no expected error"
    if trust.calibration is not None:
        known = "the error map is calibrated for it"
    return f"the input's noise is {sigma:.1f} of 255 grey levels; {known}"


def map_spec(spec: TargetSpec, name: str, plan: Plan) -> TargetSpec:
    """Return the spec of the map ``name`` for an output of ``spec``."""
    provenance = {**spec.provenance, "map": name, "what": MAPS[name]}
    if name != RESIDUAL:
        return replace(spec, dtype=np.dtype(np.float32), provenance=provenance)
    voxel_size_nm = multiplied(spec.voxel_size_nm, spec.scale)
    shape = (spec.shape[0], *(side // spec.scale for side in spec.shape[1:]))
    return replace(
        spec,
        shape=(shape[0], shape[1], shape[2]),
        dtype=np.dtype(np.float32),
        scale=1,
        voxel_size_nm=voxel_size_nm,
        block=max(plan.block[1:]),
        provenance=provenance,
    )


def _shard(name: str, plan: Plan) -> ZYX:
    return plan.block if name == RESIDUAL else plan.shard


def create_maps(volume: Path, put: Put, run: Run) -> None:
    """Make the empty maps inside the new ``volume``, if ``run`` has any."""
    if run.trust is None:
        return
    names = {name: MAPS[name] for name in run.map_names}
    store = DurableStore(volume / GROUP, put)
    zarr.create_group(store, zarr_format=2 if run.ome_zarr == "0.4" else 3, attributes={"maps": names})
    for name in names:
        Pyramid.create(
            volume / GROUP / name, map_spec(run.output, name, run.plan), _shard(name, run.plan),
            title=name, version=run.ome_zarr, pyramid=run.pyramid, put=put,
        )  # fmt: skip


def map_levels(run: Run) -> dict[str, list[Level]]:
    """Return the levels of each map of ``run``, by name."""
    return {
        name: levels_of(map_spec(run.output, name, run.plan), _shard(name, run.plan), run.ome_zarr, pyramid=run.pyramid)
        for name in run.map_names
    }


def open_maps(volume: Path, put: Put, run: Run) -> dict[str, Pyramid]:
    """Return the maps of ``run`` inside ``volume`` by name, open for writing."""
    return {name: Pyramid(volume / GROUP / name, levels, put) for name, levels in map_levels(run).items()}


def map_metadata(volume: Path, run: Run) -> Iterator[Path]:
    """Yield the files that say how the maps of ``run`` inside ``volume`` are stored."""
    levels = map_levels(run)
    if levels:
        yield from metadata_files(volume / GROUP, 0, run.ome_zarr)
    for name in levels:
        yield from metadata_files(volume / GROUP / name, len(levels[name]), run.ome_zarr)


def map_path(final: Path, name: str) -> Path:
    """Return where the map ``name`` of the output ``final`` is, or will be."""
    kind = output_format(final)
    if kind.name == "OME-Zarr":
        return final / GROUP / name
    suffix = max((end for end in kind.suffixes if final.name.lower().endswith(end)), key=len)
    return final.with_name(f"{final.name[: -len(suffix)]}.trust-{name}{final.name[-len(suffix) :]}")
