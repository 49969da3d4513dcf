"""What is understood of a request before the first pixel is computed: region, model, plan, grey values, identity."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsr_fast import __version__
from emsr_fast.errors import UsageError
from emsr_fast.infer import fingerprint
from emsr_fast.infer.gpu_tile import Gpu
from emsr_fast.infer.plan import DEFAULT_HALO, Plan, make_plan
from emsr_fast.infer.tiles import ALIGNMENT
from emsr_fast.infer.trust_maps import BYTES_PER_HR_PX, described_trust, prepare_trust
from emsr_fast.infer.worker import Runner, load_engine, load_network, spec_as_json, spec_from_json
from emsr_fast.infer.workfolder import WorkFolder
from emsr_fast.io.destination import printable
from emsr_fast.io.intensity import Normalisation, for_model, parse_range
from emsr_fast.io.locations import is_remote
from emsr_fast.io.registry import output_format, stored_dtype, within
from emsr_fast.io.resample import ResampledSource, fit_to_model, parse_input_voxel
from emsr_fast.io.selection import Span, choose_slices, parse_memory, parse_roi, parse_slices
from emsr_fast.io.volume import SourceVolume, TargetSpec, VolumeInfo, output_dtype
from emsr_fast.io.voxels import described, divided
from emsr_fast.trust.maps import RUNS, Trust

if TYPE_CHECKING:
    from emsr_fast.engine import Engine
    from emsr_fast.model import Emsr

Say = Callable[[str], None]

# float32 feature maps alive at the network's peak, measured: 7.5 to 8 (docs/scale.md)
_LIVE_MAPS = 8


@dataclass(frozen=True)
class Request:
    """What is asked for; the options of ``emsr-fast infer``, which explains them."""

    input_path: str | Path
    output_path: str | Path
    key: str | None = None
    axes: str | None = None
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
    grey_range: str | None = None
    overwrite: bool = False
    max_memory: str | None = None
    ome_zarr: str = "0.5"
    dask: str | None = None
    shard: str | None = None
    finish: bool = False
    dry_run: bool = False
    trust: bool = False
    retry: str = "the same command"  # what to type to go on, for messages


def _region(request: Request, source: SourceVolume) -> tuple[Span, Span, Span]:
    depth, height, width = source.shape
    if request.roi is not None:
        return parse_roi(request.roi, source.shape)
    chosen = choose_slices(*parse_slices(request.slices), depth)
    return (chosen.start, chosen.stop), (0, height), (0, width)


def prepare(
    request: Request, work: WorkFolder, source: SourceVolume, say: Say
) -> tuple[SourceVolume, Emsr, Engine, dict[str, Any]]:
    """Return source, resampled if so asked, network, engine and journal, and say what was understood.

    The journal is that of the run to go on with, if there is one.
    """
    voxel_choice = parse_input_voxel(request.input_voxel)
    choose_slices(*parse_slices(request.slices), source.shape[0])
    given = parse_range(request.grey_range, source.dtype) if request.grey_range else None
    say_input(source.info, say)
    runner = Runner(request.engine, request.precision, request.provider, request.truth_test, request.device)
    network = load_network(request.model, request.window_fit, runner)
    source = fit_to_model(source, network.card.lr_pixel_nm, network.card.name, voxel_choice, say)
    # a resampled volume has other rows and columns: what is asked for is of these
    region = _region(request, source)
    if work.exists():
        # measured once: a slice that is mended since then must not change it
        grey = Normalisation.from_metadata(work.journal()["normalisation"])
    else:
        grey = for_model(source, network.card, given)
    identity: dict[str, Any] = {
        "version": __version__,
        "model": fingerprint.of_model(network),
        "input": fingerprint.of_input(source, grey),
        "settings": {
            "key": request.key,
            "axes": request.axes,
            "input_voxel": request.input_voxel,
            "tile": request.tile or "automatic",
            "halo": request.halo,
            "region": [list(span) for span in region],
            "range": request.grey_range or "measured",
            "engine": request.engine,
            "precision": request.precision or "the engine's own",
            "max_memory": request.max_memory or "default",
            "ome_zarr": request.ome_zarr,
        },
    }
    if request.trust:
        identity["settings"]["trust"] = True
    if work.exists():
        journal = work.check_same(identity)
        engine, _ = load_engine(network, Plan.from_json(journal["plan"]), runner, say)
    else:
        plan = plan_for(
            network, source, region, tile=request.tile, halo=request.halo, precision=request.precision,
            max_memory=request.max_memory, trust=request.trust, equal_reads=request.engine == "trt",
        )  # fmt: skip
        engine, truth = load_engine(network, plan, runner, say)
        journal = {
            "format": 1,
            "identity": identity,
            "plan": plan.as_json(),
            "normalisation": grey.as_metadata(),
            "input": _from_anywhere(request.input_path),
            "key": request.key,
            "axes": request.axes,
            "input_voxel": request.input_voxel,
            "model": None if request.model is None else _absolute_if_file(request.model),
            "runner": asdict(runner),
            "window_fit": request.window_fit,
            "engine": engine.name,
            "truth_test": truth,
            "ome_zarr": request.ome_zarr,
            "pyramid": output_format(work.final).name == "OME-Zarr",
        }
        if request.trust:
            trust = prepare_trust(source, grey, request.model, identity["model"]["sha256"])
            journal["trust"] = trust.as_json()
        journal["spec"] = spec_as_json(_target_spec(source, network, plan, journal))
    plan, spec = Plan.from_json(journal["plan"]), spec_from_json(journal["spec"])
    low, high = journal["normalisation"]["low"], journal["normalisation"]["high"]
    say(f"grey    {low:.7g} .. {high:.7g} to 0 .. 1 ({journal['normalisation']['origin']})")
    if note := journal["normalisation"].get("note"):
        say(f"note    {note}")
    say(f"model   {network.card.name}, x{spec.scale}, window_fit {network.config.window_fit}")
    if journal.get("trust") is not None:
        say(f"trust   {described_trust(Trust.from_json(journal['trust']))}")
        say(f"note    {RUNS} runs of the network instead of one: about {RUNS} times the time")
    say(f"engine  {engine.name}")
    if engine.name != journal["engine"]:
        say(f"note    begun on {journal['engine']}: another engine rounds differently, in the last digit")
    rows, cols = plan.tile
    tile = f"{rows}" if rows == cols else f"{rows}x{cols}"
    say(f"tiles   {tile} px, halo {plan.halo} px; {len(plan)} blocks of {' x '.join(map(str, plan.block))}")
    stored = stored_dtype(work.final, spec.dtype.name)
    say(
        f"output  {work.final}: {' x '.join(map(str, spec.shape))} (Z, Y, X), {stored}, "
        f"voxel size {described(spec.voxel_size_nm)}"
    )
    if stored != spec.dtype.name:
        kind = output_format(work.final).name
        say(f"note    {kind} has no {spec.dtype.name}: the same values are written as {stored}")
    return source, network, engine, journal


def say_input(info: VolumeInfo, say: Say) -> None:
    """Say what was understood of a volume."""
    say(f"input   {info.path}: {info.format}, {' x '.join(map(str, info.shape))} (Z, Y, X), {info.dtype.name}")
    say(f"voxel   {described(info.voxel_size_nm)}, {info.voxel_size_from}")
    for note in info.notes:
        say(f"note    {note}")


def plan_for(
    network: Emsr,
    source: SourceVolume,
    region: tuple[Span, Span, Span],
    *,
    tile: int | None = None,
    halo: int = DEFAULT_HALO,
    precision: str | None = None,
    max_memory: str | None = None,
    trust: bool = False,
    equal_reads: bool = False,
) -> Plan:
    """Return how ``region`` of ``source`` is cut for ``network``; the arguments are those of ``Request``.

    Raises:
        UsageError: the tile or its memory does not fit, or a tile is too small for this network.
    """
    plan = make_plan(
        source.shape, region, scale=network.config.scale, tile=tile, halo=halo,
        itemsize=output_dtype(source.dtype).itemsize + (BYTES_PER_HR_PX if trust else 0),
        bytes_per_px=bytes_per_px(network, precision),
        max_memory=None if max_memory is None else parse_memory(max_memory),
        equal_reads=equal_reads,
        gpu=gpu_of(network, precision),
    )  # fmt: skip
    if network.config.window_fit == "resize":
        _check_resize(plan)
    return plan


def bytes_per_px(network: Emsr, precision: str | None = None) -> int:
    """Return what the network holds at its peak, in bytes per LR pixel of a tile."""
    return _LIVE_MAPS * _itemsize(network, precision) * network.config.features


def _itemsize(network: Emsr, precision: str | None) -> int:
    # other engines have the network on the CPU, and what they hold is their own affair: as much as float32
    return 2 if network.conv_in.weight.is_cuda and precision in ("fp16", "bf16") else 4


def gpu_of(network: Emsr, precision: str | None) -> Gpu | None:
    """Return the GPU that PyTorch runs the network on, as the choice of tiles sees it; None on a CPU."""
    if not network.conv_in.weight.is_cuda:
        return None
    import torch

    found = torch.cuda.get_device_properties(network.conv_in.weight.device)
    itemsize = _itemsize(network, precision)
    return Gpu(found.L2_cache_size, found.multi_processor_count, network.config.features, itemsize)


def _from_anywhere(path: str | Path) -> str:
    """Return the input's path as a worker in another folder needs it; a URL as it is."""
    return str(path) if is_remote(within(Path(path))[0]) else str(Path(path).absolute())


def _absolute_if_file(model: str | Path) -> str:
    return str(Path(model).absolute()) if Path(model).exists() else str(model)


def _check_resize(plan: Plan) -> None:
    """Refuse slices and tilings with a tile that a network with window_fit "resize" cannot take."""
    for number in range(plan.grid[1] * plan.grid[2]):
        for part in plan.tiles(plan.block_at(number)):
            sides = [span.stop - span.start for span in part.read]
            if min(sides) < ALIGNMENT:
                raise UsageError(
                    f"a tile would read {sides[0]}x{sides[1]} px of {plan.shape[1]}x{plan.shape[2]}; this model "
                    f"resizes to windows of {ALIGNMENT} px and needs as many: give --window-fit pad, or another "
                    "--tile or --halo"
                )


def _target_spec(source: SourceVolume, network: Emsr, plan: Plan, journal: dict[str, Any]) -> TargetSpec:
    (first, last), rows, cols = plan.region
    moved = source.first_centre_px if isinstance(source, ResampledSource) else (0.0, 0.0)
    key = hashlib.sha256(json.dumps(journal["identity"], sort_keys=True).encode()).hexdigest()
    return TargetSpec(
        shape=plan.output_shape,
        dtype=output_dtype(source.dtype),
        scale=plan.scale,
        voxel_size_nm=divided(source.info.voxel_size_nm, plan.scale),
        block=max(plan.shard[1:]),
        first_slice=first,
        first_pixel=(rows[0] + moved[0], cols[0] + moved[1]),
        carried=source.info.carried,
        provenance={
            "software": f"emsr_fast {__version__}",
            "model": network.card.name,
            "model_sha256": journal["identity"]["model"]["sha256"],
            "input": printable(source.info.path.name),
            "scale": plan.scale,
            "window_fit": network.config.window_fit,
            "engine": journal["engine"],
            **({} if journal["truth_test"] is None else {"truth_test": journal["truth_test"]}),
            "tile": list(plan.tile),
            "halo": plan.halo,
            "slices": [first, last],
            "rows": list(rows),
            "columns": list(cols),
            "normalisation": journal["normalisation"],
            "run": key,
            **({"absent_chunks": dict(source.info.absent)} if source.info.absent else {}),
            **({"resampled": source.as_metadata()} if isinstance(source, ResampledSource) else {}),
            **({"trust": journal["trust"]} if "trust" in journal else {}),
        },
    )
