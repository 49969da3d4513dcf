"""Finetuning: minutes of training on the user's images. The result is kept only if it is better on slices held back."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from signal import SIGINT
from typing import Any

from emsr_fast.callbacks import Say
from emsr_fast.errors import UsageError, VolumeError
from emsr_fast.io.destination import system_errors
from emsr_fast.io.locations import within
from emsr_fast.leftovers import tidy
from emsr_fast.model import Emsr, ModelCard, load_model
from emsr_fast.model.zoo import DEFAULT_MODEL, choose_device, model_path
from emsr_fast.publish import Staging
from emsr_fast.reading import parse_json, read_regular
from emsr_fast.train.config import TrainConfig
from emsr_fast.train.finetuned_output import check_names, picture_beside, publish
from emsr_fast.train.hold_back import Pair
from emsr_fast.train.judge import Judgement, held_regions, judge, picture, results_of
from emsr_fast.train.loop import Diverged, TrainingResult, train
from emsr_fast.train.pairs import TooSmall, files_of, manifest, pairs_of
from emsr_fast.train.start import lineage
from emsr_fast.wording import counted

_CROPS_PX = (32, 16, 8)  # LR px, the largest that the images have room for
_BATCH = {"cpu": 4, "cuda": 16}
_SHARE = 0.1  # held back
_SHOWN_NAMES = 5
_ENDLESS = 10**6  # steps, where minutes are what ends the run


def finetune(
    images: Sequence[Path] = (),
    *,
    output: Path,
    hr: Path | None = None,
    lr: Path | None = None,
    pairs: Path | None = None,
    minutes: float = 3.0,
    steps: int | None = None,
    model: str = DEFAULT_MODEL,
    intensity_range: str | None = None,
    pixel_nm: float | None = None,
    rate: float = 1e-4,
    device: str = "auto",
    overwrite: bool = False,
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Train ``model`` on the user's images; write the result if it is better on the slices held back.

    Give one of ``images``, ``lr`` with ``hr``, or ``pairs``. One slice in ten is held back; of fewer than five slices,
    their lower rows.

    Args:
        images: HR images, folders or volumes; LR is made from them.
        output: the model file to write, NAME.safetensors; a picture, NAME.finetune.png, is written beside it.
        hr: acquired HR; lr: the same field in LR, as many images, sorted alike.
        pairs: a table of acquired pairs, columns lr and hr.
        minutes: how long to train; the work before and after takes seconds.
        steps: how many steps to train at most.
        model: a shipped model's name or a model file.
        intensity_range: "LO:HI" or "dtype", grey values that become 0 and 1; measured in each file by default.
        pixel_nm: HR pixel size, where the images state none or a wrong one.
        rate: learning rate of the first step; it falls to 0.
        overwrite: whether to replace existing output, at the very end.
        say: called with each line of progress.

    Returns:
        JSON values: "kept", "output" and "picture" (None if not kept), "steps", "metrics", "stopped_by" (a signal's
        number or None).

    Raises:
        UsageError: the arguments contradict each other.
        VolumeError: images cannot be read or do not fit, or the output cannot be written.
        CheckpointError, BackendError: the model or the device is not there.
    """
    if sum((bool(images), hr is not None or lr is not None, pairs is not None)) != 1 or (hr is None) != (lr is None):
        raise UsageError("give either images, or `lr` and `hr`, or `pairs`")
    for what, value in (("`minutes`", minutes), ("rate", rate), ("`pixel_nm`", pixel_nm)):
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"{what} is {value:g}; give a number above 0")
    inputs = [*images, *(path for path in (hr, lr, pairs) if path is not None)]
    final = check_names(output, overwrite=overwrite, inputs=[*_files(inputs, pairs), model_path(model)])
    for place in (final, picture_beside(final)):
        tidy(place)
    start = load_model(model, device=device)
    name, scale = final.stem, start.config.scale
    with ExitStack() as ending:
        with system_errors(final):
            # beside the output, where the next try removes what a killed one left
            work = Staging(final, folder=True)
        ending.callback(work.discard)
        folder = work.path
        source = _source(images, hr, lr, pairs, intensity_range or _range_of(pairs), folder)
        config = TrainConfig.model_validate(
            {
                "name": name,
                "output": folder / "run",
                "start_from": model,
                "sources": [source],
                "batch": _BATCH[choose_device(device).type],
                "steps": steps or _ENDLESS,
                "minutes": minutes,
                "extra_lr_sigma": (0, 0),
                "loss": {"weights": (1, 0, 0)},
                "optimiser": {"rate": rate, "schedule": "cosine"},
                "device": device,
                # judged by us, at the end; what is half-done is not kept
                "validation_crops": 0,
                "checkpoint_every": _ENDLESS,
                "checkpoint_minutes": minutes + 60,
            }
        )
        config, training, held = _fitting(config, scale, folder)
        regions = held_regions(held, config, scale)
        before = results_of(start, regions)
        try:
            outcome = train(config, say=say)
        except Diverged as error:
            raise VolumeError(
                f"finetuning failed, nothing is written: the loss is no longer a number at rate {rate:g}; "
                "check the grey values of the images (emsr-fast inspect), and give `intensity_range=LO:HI`"
            ) from error
        if outcome.stopped_by not in (None, SIGINT) or not outcome.steps:
            say(f"kept    nothing: stopped after {counted(outcome.steps, 'step')}; {final.name} is not written")
            return _report(outcome, None, None)
        if outcome.stopped_by:
            say(
                f"stopped after {counted(outcome.steps, 'step')}; comparing with the start. "
                "Ctrl-C again throws them away"
            )
        end = load_model(outcome.model, device=device)
        after = results_of(end, regions)
        judgement = judge(regions, before, after, scale)
        for line in judgement.table(start.card.name, name):
            say(f"        {line}")
        if beaten_by := judgement.beaten_by(start.card.name):
            say(
                f"kept    nothing: {counted(outcome.steps, 'step')} made it no better than {beaten_by} on the slices "
                f"held back; {final.name} is not written"
            )
            return _report(outcome, judgement, None)
        names = _names(inputs)
        end.card = _card(name, start, end, outcome, judgement, names, _pixels(training + held, scale, pixel_nm))
        publish(
            final,
            end,
            lambda path: picture(path, regions, (before, after), judgement, (start.card.name, name)),
            overwrite=overwrite,
        )
    early = "stopped early, and kept what was learnt until then: " if outcome.stopped_by else ""
    say(f"kept    {early}{final}, and the picture {picture_beside(final)}")
    return _report(outcome, judgement, final)


def _files(inputs: Sequence[Path], pairs: Path | None) -> Iterator[Path]:
    """Yield every file and folder that is read, with links followed: a link in a folder may lead anywhere."""
    for path in inputs:
        container, _ = within(path)
        yield container
        yield from (within(file)[0] for file in files_of(path))
    if pairs is not None:
        yield from (within(path)[0] for row in manifest(pairs) for path in row)


def _source(
    images: Sequence[Path],
    hr: Path | None,
    lr: Path | None,
    pairs: Path | None,
    intensity_range: str | None,
    folder: Path,
) -> dict[str, Any]:
    shared = {"intensity_range": intensity_range, "validation_share": _SHARE}
    if pairs is not None:
        return {"strategy": "real", "pairs": pairs, **shared}
    if hr is not None:
        return {"strategy": "real", "hr": hr, "lr": lr, **shared}
    # a table in which every image is its own partner
    table = folder / "images.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("lr", "hr"))
        for path in dict.fromkeys(path.resolve() for given in images for path in files_of(given)):
            writer.writerow((path, path))
    return {"strategy": "synthetic", "pairs": table, **shared}


def _range_of(pairs: Path | None) -> str | None:
    """Return the grey range that ``emsr-fast pair`` wrote beside the table, if it wrote the table."""
    settings = pairs.with_name("pair.json") if pairs is not None else None
    if settings is None or not settings.is_file():
        return None
    try:
        found = parse_json(read_regular(settings)).get("intensity_range")
    except (OSError, ValueError, AttributeError) as error:
        raise VolumeError(
            f"{settings} is damaged ({error}); make the pairs anew, or give `intensity_range=LO:HI`"
        ) from error
    return str(found) if found else None


def _fitting(config: TrainConfig, scale: int, folder: Path) -> tuple[TrainConfig, list[Pair], list[Pair]]:
    """Return the settings with the largest crop that the images have room for, the pairs, and those held back."""
    for crop in _CROPS_PX:
        config = config.model_copy(update={"crop": crop})
        try:
            return config, *pairs_of(config.sources[0], scale, crop, folder)
        except TooSmall as error:
            if crop == _CROPS_PX[-1]:
                raise VolumeError(
                    f"{error.path} is {error.height}x{error.width} HR px, too small to learn from and to hold some "
                    f"back; give images of at least {2 * scale * crop}x{scale * crop} HR px"
                ) from error
    raise AssertionError  # the loop returns or raises


def _pixels(pairs: Sequence[Pair], scale: int, pixel_nm: float | None) -> tuple[list[float], list[float]]:
    """Return the HR and the LR pixel sizes of the data, nm; empty where no image states one."""
    sizes: tuple[set[float], set[float]] = (set(), set())
    for pair in pairs:
        _, *sides = pair.reference.voxel_size_nm
        high = pixel_nm or _mean(sides)
        low = _mean(list(pair.origin.voxel_size_nm[1:])) if pair.degradation is None and not pixel_nm else None
        low = low or (scale * high if high else None)
        for found, size in zip(sizes, (high, low), strict=True):
            if size:
                found.add(float(f"{size:.6g}"))
    return sorted(sizes[0]), sorted(sizes[1])


def _mean(sides: Sequence[float | None]) -> float | None:
    known = [side for side in sides if side]
    return math.prod(known) ** (1 / len(known)) if known else None


def _names(paths: Sequence[Path]) -> list[str]:
    # resolved: "." has no name
    names = [path.resolve().name for path in paths]
    more = [f"and {len(names) - _SHOWN_NAMES} more"] if len(names) > _SHOWN_NAMES else []
    return [*names[:_SHOWN_NAMES], *more]


def _card(
    name: str,
    start: Emsr,
    end: Emsr,
    outcome: TrainingResult,
    judgement: Judgement,
    names: list[str],
    pixels: tuple[list[float], list[float]],
) -> ModelCard:
    before, gain = start.card, float(judgement.gains_db.mean())
    # what is said of a model before this one has its name already
    earlier = tuple(f"{one.get('name')}: " for one in lineage(before)[1:])
    training = {key: value for key, value in end.card.training.items() if key != "sources"}
    return before.model_copy(
        update={
            "name": name,
            "description": f"{before.name}, finetuned on {', '.join(names)}: {gain:+.2f} dB on slices held back.",
            "hr_pixel_nm": pixels[0],
            "lr_pixel_nm": pixels[1],
            "training": {**training, "data": names},
            "metrics": judgement.as_metrics(),
            "limits": [
                f"finetuned on one set of images; on others it may be worse than {before.name}",
                *(limit if limit.startswith(earlier) else f"{before.name}: {limit}" for limit in before.limits),
            ],
        }
    )


def _report(outcome: TrainingResult, judgement: Judgement | None, final: Path | None) -> dict[str, Any]:
    return {
        "kept": final is not None,
        "output": str(final) if final else None,
        "picture": str(picture_beside(final)) if final else None,
        "steps": outcome.steps,
        "seconds": round(outcome.seconds, 1),
        "metrics": judgement.as_metrics() if judgement else {},
        "stopped_by": outcome.stopped_by,
    }
