"""The main job from path to path: what ``emsr-fast infer`` does, as a function."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsr_fast import __version__
from emsr_fast.errors import UsageError
from emsr_fast.export.shapes import Shapes
from emsr_fast.volume.formats import create_target, open_source, within
from emsr_fast.volume.formats.base import SourceVolume, TargetSpec, output_dtype
from emsr_fast.volume.formats.destination import check_destination, printable
from emsr_fast.volume.intensity import measure, parse_range
from emsr_fast.volume.predict import DEFAULT_HALO, DEFAULT_TILE, super_resolve
from emsr_fast.volume.resample import ResampledSource, fit_to_model, parse_input_voxel
from emsr_fast.volume.tiles import ALIGNMENT, check_tiling, grown_sides, tiles_of
from emsr_fast.volume.voxels import described, divided

if TYPE_CHECKING:
    from emsr_fast.model import Emsr

# given the LR pixels to do, a context whose value is called with the LR pixels done
Progress = Callable[[int], AbstractContextManager[Callable[[int], None]]]


def infer(
    input_path: str | Path,
    output_path: str | Path,
    *,
    key: str | None = None,
    axes: str | None = None,
    input_voxel: str | None = None,
    model: str | Path | None = None,
    window_fit: str | None = None,
    device: str = "auto",
    engine: str = "torch",
    precision: str | None = None,
    provider: str = "auto",
    truth_test: bool = True,
    tile: int = DEFAULT_TILE,
    halo: int = DEFAULT_HALO,
    slices: str = ":",
    grey_range: str | None = None,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda line: None,
    progress: Progress = lambda lr_pixels: nullcontext(lambda done: None),
) -> dict[str, Any]:
    """Super-resolve the volume at ``input_path`` into a new one; return what was done, as JSON values.

    Args:
        input_path: anything ``open_source`` reads.
        output_path: .ome.zarr, .zarr, .ome.tif, .tif, .h5 or .mrc; appears only when complete.
        key: which image of a file with several, see ``open_source``.
        axes: what the stored axes are, see ``open_source``.
        input_voxel: what to do about pixels of another size than the model's, see ``fit_to_model``.
        model: name of a shipped model or path of a model file; the default model if None.
        window_fit: "pad" or "resize" instead of the model's own, see ``EmsrConfig``.
        device: "auto", "cpu", "cuda" or "cuda:N".
        engine: "torch", "onnx" or "trt"; see docs/deployment.md.
        precision: "fp32", "fp16" or "bf16"; the engine's own if None.
        provider: of TensorRT, "auto", "tensorrt" or "tensorrt-rtx".
        truth_test: whether an engine other than torch must agree with it on real tiles first.
        tile: side of what a tile owns, in LR pixels; a multiple of 4.
        halo: LR pixels read around it; a multiple of 4.
        slices: "a:b", the slices from a to before b; either may be left out.
        grey_range: "LO:HI" in the input's grey values, or "dtype"; measured if None.
        overwrite: whether an existing output of the same format is replaced, at the very end.
        say: called with each line of what was understood, before the work starts.
        progress: see ``Progress``.

    Raises:
        UsageError: the arguments contradict each other or the input.
        VolumeError: the input cannot be read or the output not written.
        CheckpointError: the model file is not one.
        BackendError: the device or engine is not there, it failed its truth test, or the network failed on it.
    """
    # cheap checks first: torch takes seconds to load, a model longer
    check_tiling(tile, halo)
    start, stop = parse_slices(slices)
    if window_fit not in (None, "pad", "resize"):
        raise UsageError(f"window-fit is {window_fit!r}; give pad or resize, or leave it out for the model's own")
    voxel_choice = parse_input_voxel(input_voxel)
    final = check_destination(output_path, overwrite=overwrite, source=within(Path(input_path))[0])
    if engine != "torch" or precision is not None:
        from emsr_fast.engine import check_engine

        instead = f"emsr-fast infer {shlex.quote(str(input_path))} -o {shlex.quote(str(output_path))} --engine torch"
        check_engine(engine, precision, device, instead=instead)
    with open_source(input_path, key, axes) as source:
        chosen = choose_slices(start, stop, source.shape[0])
        given = parse_range(grey_range, source.dtype) if grey_range else None
        _say_input(source, say)

        from emsr_fast.engine import open_engine
        from emsr_fast.model import load_model
        from emsr_fast.model.zoo import DEFAULT_MODEL

        # the other engines need the network for its weights only, and to be judged by
        place = device if engine == "torch" else "cpu"
        network = load_model(DEFAULT_MODEL if model is None else model, device=place, window_fit=window_fit)
        source = fit_to_model(source, network.card.lr_pixel_nm, network.card.name, voxel_choice, say)
        if network.config.window_fit == "resize":
            _check_resize(source.shape, tile, halo)
        runs, truth = open_engine(
            engine,
            network,
            shapes=_shapes(source.shape, tile, halo),
            precision=precision,
            device=device,
            provider=provider,
            truth=truth_test,
            say=say,
        )
        by_percentile = network.card.normalisation == "percentile"
        grey = given or measure(source, chosen, by_percentile=by_percentile)
        say(f"grey    {grey.describe()}")
        spec = _target_spec(source, network, chosen, tile, provenance=_provenance(source, network, runs.name))
        if isinstance(source, ResampledSource):
            spec.provenance["resampled"] = source.as_metadata()
        spec.provenance.update(
            tile=tile, halo=halo, slices=[chosen.start, chosen.stop], normalisation=grey.as_metadata()
        )
        if truth is not None:
            spec.provenance.update(precision=runs.precision, truth_test=truth)
        say(f"model   {network.card.name}, x{spec.scale}, window_fit {network.config.window_fit}")
        say(f"engine  {runs.name}")
        say(f"tiles   {tile} px, halo {halo} px")
        say(
            f"output  {final}: {' x '.join(map(str, spec.shape))} (Z, Y, X), {spec.dtype.name}, "
            f"voxel size {described(spec.voxel_size_nm)}"
        )
        _, height, width = source.shape
        with create_target(final, spec, overwrite=overwrite) as target:
            with progress(len(chosen) * height * width) as done:
                result = super_resolve(
                    source,
                    target,
                    runs,
                    tile=tile,
                    halo=halo,
                    slices=chosen,
                    normalisation=grey,
                    equal_reads=runs.shapes is not None,
                    progress=done,
                )
            target.commit()
    return {
        "output": str(final),
        "shape": list(spec.shape),
        "dtype": spec.dtype.name,
        "voxel_size_nm": list(spec.voxel_size_nm),
        "slices": result.slices,
        "lr_pixels": result.lr_pixels,
        "seconds": round(result.seconds, 3),
        "lr_mpx_per_s": round(result.lr_pixels / 1e6 / max(result.seconds, 1e-9), 4),
        "clipped_fraction": result.clipped_fraction,
        "settings": spec.provenance,
    }


def parse_slices(text: str) -> tuple[int | None, int | None]:
    """Return the two ends of "a:b", None where one is left out.

    Raises:
        UsageError: another form, a negative number, or b not above a.
    """
    first, colon, last = text.partition(":")
    advice = "give a:b, from slice a to before slice b counted from 0, such as 10:20, 10: or :20"
    if not colon or any(end and not (end.isascii() and end.isdigit()) for end in (first, last)):
        raise UsageError(f"slices is {text!r}; {advice}")
    start, stop = (int(end) if end else None for end in (first, last))
    if stop is not None and stop <= (start or 0):
        raise UsageError(f"slices {text!r} has no slice in it; {advice}")
    return start, stop


def choose_slices(start: int | None, stop: int | None, depth: int) -> range:
    """Return the slices from ``start`` to before ``stop`` of a volume with ``depth`` of them.

    Raises:
        UsageError: the volume has fewer.
    """
    chosen = range(start or 0, depth if stop is None else stop)
    if chosen.start >= depth or chosen.stop > depth:
        asked = f"{'' if start is None else start}:{'' if stop is None else stop}"
        raise UsageError(f"slices {asked} reach beyond the volume, which has {depth} (0 to {depth - 1}); give fewer")
    return chosen


def _check_resize(shape: tuple[int, int, int], tile: int, halo: int) -> None:
    """Refuse slices and tilings with a tile that a network with window_fit "resize" cannot take."""
    _, height, width = shape
    for part in tiles_of(height, width, tile, halo):
        sides = [span.stop - span.start for span in part.read]
        if min(sides) < ALIGNMENT:
            raise UsageError(
                f"a tile would read {sides[0]}x{sides[1]} px of {height}x{width}; this model resizes to windows of "
                f"{ALIGNMENT} px and needs as many: give --window-fit pad, or another --tile or --halo"
            )


def _shapes(shape: tuple[int, int, int], tile: int, halo: int) -> Shapes:
    """Return the batches that tiles of equal reads make: one shape, or a few that differ by less than a window."""
    rows, cols = (grown_sides(length, tile, halo) for length in shape[1:])
    return Shapes((1, rows[0], cols[0]), (1, rows[1], cols[1]), (1, rows[1], cols[1]))


def _say_input(source: SourceVolume, say: Callable[[str], None]) -> None:
    info = source.info
    say(f"input   {info.path}: {info.format}, {' x '.join(map(str, info.shape))} (Z, Y, X), {info.dtype.name}")
    say(f"voxel   {described(info.voxel_size_nm)}, {info.voxel_size_from}")
    for note in info.notes:
        say(f"note    {note}")


def _target_spec(
    source: SourceVolume, network: Emsr, chosen: range, tile: int, provenance: dict[str, Any]
) -> TargetSpec:
    scale = network.config.scale
    _, height, width = source.shape
    return TargetSpec(
        shape=(len(chosen), scale * height, scale * width),
        dtype=output_dtype(source.dtype),
        scale=scale,
        voxel_size_nm=divided(source.info.voxel_size_nm, scale),
        block=scale * tile,
        first_slice=chosen.start,
        provenance=provenance,
        carried=source.info.carried,
    )


def _provenance(source: SourceVolume, network: Emsr, engine_name: str) -> dict[str, Any]:
    return {
        "software": f"emsr_fast {__version__}",
        "model": network.card.name,
        "input": printable(source.info.path.name),
        "scale": network.config.scale,
        "window_fit": network.config.window_fit,
        "engine": engine_name,
    }
