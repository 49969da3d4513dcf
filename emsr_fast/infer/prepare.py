"""From a request to a run: region, model, plan, grey values and identity, before the first pixel is computed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsr_fast import __version__
from emsr_fast.callbacks import Say
from emsr_fast.errors import UsageError
from emsr_fast.infer import fingerprint
from emsr_fast.infer.gpu_tile import Gpu
from emsr_fast.infer.plan import DEFAULT_HALO, Plan, limit_reading, make_plan
from emsr_fast.infer.request import Request, inputs_of, region_of, settings_of
from emsr_fast.infer.run import EngineOptions, Identity, Run
from emsr_fast.infer.tiles import ALIGNMENT
from emsr_fast.infer.trust_maps import BYTES_PER_HR_PX, described_trust, prepare_trust
from emsr_fast.infer.worker import load_engine, load_network
from emsr_fast.infer.workfolder import WorkFolder
from emsr_fast.io.destination import printable
from emsr_fast.io.formats import output_format, stored_dtype
from emsr_fast.io.intensity import Normalisation, for_model, parse_range
from emsr_fast.io.pixel_size import fit_to_model, parse_input_voxel
from emsr_fast.io.resample import ResampledSource
from emsr_fast.io.selection import Span, choose_slices, parse_memory, parse_slices
from emsr_fast.io.volume import SourceVolume, TargetSpec, VolumeInfo, output_dtype
from emsr_fast.io.voxels import described, divided
from emsr_fast.trust.maps import RUNS, Trust
from emsr_fast.wording import counted, without_folders

if TYPE_CHECKING:
    from emsr_fast.engine import Engine
    from emsr_fast.model import Emsr

# float32 feature maps alive at the network's peak, measured: 7.5 to 8 (docs/scale.md)
_LIVE_MAPS = 8


def prepare(
    request: Request, work: WorkFolder, source: SourceVolume, say: Say
) -> tuple[SourceVolume, Emsr, Engine, Run]:
    """Return source (resampled if asked), network, engine and run; say what they are.

    If a run was begun in ``work``, that run is returned.

    Raises:
        UsageError: the request contradicts the input or the model.
        VolumeError: the input cannot be used, or another run was begun in ``work``.
    """
    voxel_choice = parse_input_voxel(request.input_voxel)
    choose_slices(*parse_slices(request.slices), source.shape[0])
    given = parse_range(request.intensity_range, source.dtype) if request.intensity_range else None
    say_input(source.info, say)
    options = EngineOptions(request.engine, request.precision, request.provider, request.truth_test, request.device)
    network = load_network(request.model, request.window_fit, options)
    source = fit_to_model(source, network.card.lr_pixel_nm, network.card.name, voxel_choice, say)
    memory = None if request.max_memory is None else parse_memory(request.max_memory)
    reading = limit_reading(source, memory)
    # a resampled volume has other rows and columns: what is asked for is of these
    region = region_of(request, source)
    begun = work.run() if work.exists() else None
    # measured once: a slice that is mended since then must not change it
    grey = for_model(source, network.card, given) if begun is None else begun.normalisation
    settings = settings_of(request, region)
    identity = Identity(__version__, fingerprint.of_model(network), fingerprint.of_input(source, grey), settings)
    if begun is not None:
        begun.check_same(identity, work.path)
        run = begun
        engine, _ = load_engine(network, run.plan, options, say)
    else:
        plan = plan_for(
            network, source, region, tile=request.tile, halo=request.halo, precision=request.precision,
            max_memory=memory, reading=reading, trust=request.trust, equal_reads=request.engine == "trt",
        )  # fmt: skip
        engine, truth = load_engine(network, plan, options, say)
        trust = prepare_trust(source, grey, request.model, identity.model.sha256) if request.trust else None
        provenance = _provenance(source, identity, plan, grey, trust, engine.name, truth)
        run = Run(
            identity=identity,
            inputs=inputs_of(request),
            plan=plan,
            output=_output(source, plan, provenance),
            normalisation=grey,
            trust=trust,
            engine_options=options,
            engine=engine.name,
            truth_test=truth,
            pyramid=output_format(work.final).name == "OME-Zarr",
        )
    _say_run(run, engine, work.final, say)
    return source, network, engine, run


def _say_run(run: Run, engine: Engine, final: Path, say: Say) -> None:
    plan, spec, model = run.plan, run.output, run.identity.model
    say(f"grey    {run.normalisation.describe()}")
    if run.normalisation.note:
        say(f"note    {run.normalisation.note}")
    say(f"model   {model.name}, x{spec.scale}, window_fit {model.config.window_fit}")
    if run.trust is not None:
        say(f"trust   {described_trust(run.trust)}")
        say(f"note    {RUNS} runs of the network instead of one: about {RUNS} times the time")
    say(f"engine  {engine.name}")
    if engine.name != run.engine:
        say(f"note    begun on {run.engine}: another engine rounds differently, in the last digit")
    rows, cols = plan.tile
    tile = f"{rows}" if rows == cols else f"{rows}x{cols}"
    say(f"tiles   {tile} px, halo {plan.halo} px; {counted(len(plan), 'block')} of {' x '.join(map(str, plan.block))}")
    stored = stored_dtype(final, spec.dtype.name)
    say(
        f"output  {final}: {' x '.join(map(str, spec.shape))} (Z, Y, X), {stored}, "
        f"voxel size {described(spec.voxel_size_nm)}"
    )
    if stored != spec.dtype.name:
        kind = output_format(final).name
        say(f"note    {kind} has no {spec.dtype.name}: the same values are written as {stored}")


def say_input(info: VolumeInfo, say: Say) -> None:
    """Say what a volume is: format, shape, dtype, voxel size."""
    say(f"input   {info.path}: {info.format}, {' x '.join(map(str, info.shape))} (Z, Y, X), {info.dtype.name}")
    if info.instrument:
        say(f"made by {info.instrument}")
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
    max_memory: int | None = None,
    reading: int = 0,
    trust: bool = False,
    equal_reads: bool = False,
) -> Plan:
    """Return how ``region`` of ``source`` is cut for ``network``; the arguments are those of ``make_plan``.

    Raises:
        UsageError: the tile or its memory does not fit, or a tile is too small for this network.
    """
    plan = make_plan(
        source.shape, region, scale=network.config.scale, tile=tile, halo=halo,
        itemsize=output_dtype(source.dtype).itemsize + (BYTES_PER_HR_PX if trust else 0),
        bytes_per_px=bytes_per_px(network, precision),
        max_memory=max_memory,
        reading=reading,
        equal_reads=equal_reads,
        gpu=gpu_of(network, precision),
    )  # fmt: skip
    if network.config.window_fit == "resize":
        _check_resize(plan)
    return plan


def bytes_per_px(network: Emsr, precision: str | None = None) -> int:
    """Return the network's peak memory, in bytes per LR pixel of a tile."""
    return _LIVE_MAPS * _itemsize(network, precision) * network.config.features


def _itemsize(network: Emsr, precision: str | None) -> int:
    # other engines have the network on the CPU, and what they hold is their own affair: as much as float32
    return 2 if network.conv_in.weight.is_cuda and precision in ("fp16", "bf16") else 4


def gpu_of(network: Emsr, precision: str | None) -> Gpu | None:
    """Return the GPU that PyTorch runs the network on, for the choice of tiles; None on a CPU."""
    if not network.conv_in.weight.is_cuda:
        return None
    import torch

    found = torch.cuda.get_device_properties(network.conv_in.weight.device)
    itemsize = _itemsize(network, precision)
    return Gpu(found.L2_cache_size, found.multi_processor_count, network.config.features, itemsize)


def _check_resize(plan: Plan) -> None:
    """Raise UsageError if a tile is too small for a network with window_fit "resize"."""
    rows, cols = (min(read for read, _ in plan.reads_along(axis)) for axis in (1, 2))
    if min(rows, cols) < ALIGNMENT:
        raise UsageError(
            f"a tile would read {rows}x{cols} px of {plan.shape[1]}x{plan.shape[2]}; this model resizes to windows of "
            f"{ALIGNMENT} px and needs as many; give a larger region, or `window_fit=pad`, or another `tile` or `halo`"
        )


def _output(source: SourceVolume, plan: Plan, provenance: dict[str, Any]) -> TargetSpec:
    (first, _), rows, cols = plan.region
    moved = source.first_centre_px if isinstance(source, ResampledSource) else (0.0, 0.0)
    return TargetSpec(
        shape=plan.output_shape,
        dtype=output_dtype(source.dtype),
        scale=plan.scale,
        voxel_size_nm=divided(source.info.voxel_size_nm, plan.scale),
        block=max(plan.shard[1:]),
        first_slice=first,
        first_pixel=(rows[0] + moved[0], cols[0] + moved[1]),
        carried=source.info.carried,
        provenance=provenance,
    )


def _provenance(
    source: SourceVolume,
    identity: Identity,
    plan: Plan,
    grey: Normalisation,
    trust: Trust | None,
    engine: str,
    truth_test: dict[str, Any] | None,
) -> dict[str, Any]:
    """Return the provenance for the output's metadata, as JSON values."""
    slices, rows, cols = map(list, plan.region)
    return {
        "software": f"emsr_fast {__version__}",
        "model": identity.model.name,
        "model_sha256": identity.model.sha256,
        "input": printable(source.info.path.name),
        **_as_read(source, identity),
        "scale": plan.scale,
        "window_fit": identity.model.config.window_fit,
        "engine": engine,
        **({} if truth_test is None else {"truth_test": truth_test}),
        "tile": list(plan.tile),
        "halo": plan.halo,
        "slices": slices,
        "rows": rows,
        "columns": cols,
        "normalisation": grey.as_metadata(),
        "run": identity.key,
        **({"absent_chunks": dict(source.info.absent)} if source.info.absent else {}),
        **({"resampled": source.as_metadata()} if isinstance(source, ResampledSource) else {}),
        **({} if trust is None else {"trust": trust.as_json()}),
    }


def _as_read(source: SourceVolume, identity: Identity) -> dict[str, Any]:
    """Return which part of the input was read, and what was assumed of it: the notes of ``inspect``."""
    asked = identity.settings
    # where a file was is nobody else's business
    notes = [printable(without_folders(note, source.info.path)) for note in source.info.notes]
    read = {"key": asked.key, "axes": asked.axes, "channel": asked.channel, "input_notes": notes or None}
    read |= {"keep_data_bar": True} if asked.keep_data_bar else {}
    return {name: value for name, value in read.items() if value is not None}
