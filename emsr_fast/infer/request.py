"""The arguments of ``infer``, before anything is opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from emsr_fast.infer.plan import DEFAULT_HALO
from emsr_fast.infer.retry import Retry, same_call
from emsr_fast.infer.run import NO_LIMIT, RunInputs, RunSettings
from emsr_fast.io.locations import is_remote, within
from emsr_fast.io.selection import Span, choose_slices, parse_roi, parse_slices
from emsr_fast.io.volume import SourceVolume


@dataclass(frozen=True)
class Request:
    """The options of ``emsr-fast infer``; its help explains them."""

    input_path: str | Path
    output_path: str | Path
    key: str | None = None
    axes: str | None = None
    channel: int | None = None
    keep_data_bar: bool = False
    input_voxel: str | None = None
    model: str | Path | None = None
    window_fit: str | None = None
    device: str = "auto"
    engine: str = "torch"
    precision: str | None = None
    provider: str = "auto"
    truth_test: bool = True
    tile: int | None = None
    halo: int = DEFAULT_HALO
    slices: str = ":"
    roi: str | None = None
    intensity_range: str | None = None
    overwrite: bool = False
    max_memory: str | None = None
    ome_zarr: str = "0.5"
    dask: str | None = None
    shard: str | None = None
    finish: bool = False
    dry_run: bool = False
    trust: bool = False
    retry: Retry = same_call  # for messages


def region_of(request: Request, source: SourceVolume) -> tuple[Span, Span, Span]:
    """Return the slices, rows and columns asked for; raise UsageError if ``source`` does not have them all."""
    depth, height, width = source.shape
    if request.roi is not None:
        return parse_roi(request.roi, source.shape)
    chosen = choose_slices(*parse_slices(request.slices), depth)
    return (chosen.start, chosen.stop), (0, height), (0, width)


def settings_of(request: Request, region: tuple[Span, Span, Span]) -> RunSettings:
    """Return the options of ``request`` that a continued run must have, too."""
    return RunSettings(
        key=request.key,
        axes=request.axes,
        channel=request.channel,
        keep_data_bar=request.keep_data_bar,
        input_voxel=request.input_voxel,
        tile=request.tile or "automatic",
        halo=request.halo,
        region=region,
        range=request.intensity_range or "measured",
        engine=request.engine,
        precision=request.precision or "the engine's own",
        max_memory=request.max_memory or NO_LIMIT,
        ome_zarr=request.ome_zarr,
        trust=request.trust,
    )


def inputs_of(request: Request) -> RunInputs:
    """Return where a worker in any folder finds volume and model."""
    return RunInputs(
        path=_from_anywhere(request.input_path),
        model=None if request.model is None else _absolute_if_file(request.model),
        window_fit=request.window_fit,
    )


def _from_anywhere(path: str | Path) -> str:
    """Return the input's path as a worker in another folder needs it; a URL as it is."""
    return str(path) if is_remote(within(Path(path))[0]) else str(Path(path).absolute())


def _absolute_if_file(model: str | Path) -> str:
    return str(Path(model).absolute()) if Path(model).exists() else str(model)
