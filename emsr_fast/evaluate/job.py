"""What ``emsr-fast evaluate`` does, as a function: measure a super-resolved volume, write the report."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emsr_fast import __version__
from emsr_fast.errors import UsageError, VolumeError
from emsr_fast.evaluate.folder import check_report_folder, report_folder
from emsr_fast.evaluate.inputs import EvaluationInputs, open_inputs
from emsr_fast.evaluate.measures import DEFINITIONS, Lpips, measure_sample
from emsr_fast.evaluate.number_format import decibels
from emsr_fast.evaluate.results import Evaluation
from emsr_fast.evaluate.samples import Sample, choose_samples
from emsr_fast.installing import lacking
from emsr_fast.io.locations import within
from emsr_fast.io.readers.parts.files import DamagedError
from emsr_fast.io.selection import choose_slices, parse_slices
from emsr_fast.leftovers import tidy
from emsr_fast.wording import without_folders

DEFAULT_SAMPLES = 16
DEFAULT_REGION = 1024


def evaluate(
    sr: str | Path,
    output: str | Path,
    *,
    reference: str | Path | None = None,
    lr: str | Path | None = None,
    second_scan: str | Path | None = None,
    trust: str | Path | None = None,
    slices: str = ":",
    samples: int = DEFAULT_SAMPLES,
    region: int = DEFAULT_REGION,
    intensity_range: str | None = None,
    pixel_nm: float | None = None,
    lpips: str | Path | None = None,
    channel: int | None = None,
    keep_data_bar: bool = False,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measure the volume ``sr`` and write report.html, report.json and slices.csv; return what report.json holds.

    Volumes are anything ``open_source`` reads. One region of one slice is in memory at a time.

    Args:
        sr: (Z, Y, X), the super-resolved volume.
        output: the report's folder; appears when complete.
        reference: (Z, Y, X) of the same field; fidelity is measured against it, or against ``second_scan`` without it.
        lr: (Z, Y / scale, X / scale), the input of ``sr``; bicubic interpolation of it is measured, too.
        second_scan: (Z, Y, X), a scan of the same field with noise of its own, for Fourier ring correlation.
            Without it, the correlation is with the reference, and within each image.
        trust: (Z, Y, X), the map of the expected error of ``sr``; compared with the true error.
        slices: "a:b" of ``sr``, from which ``samples`` are chosen; 0 is all.
        region: HR pixels, side of the region measured in each slice.
        intensity_range: "LO:HI" or "dtype", the data range of PSNR and SSIM; as in ``infer`` by default.
        pixel_nm: side of an SR pixel; the files' own by default.
        lpips: file with AlexNet's weights; without it LPIPS is left out.
        channel: which one of volumes that have several, counted from 0; volumes without channels are read as they are.
        keep_data_bar: whether the printed strip below a microscope's image is read, too.
        overwrite: whether to replace an earlier report in ``output``.
        say: called with each line of progress.

    Raises:
        UsageError: the arguments contradict each other, or shapes do not fit.
        VolumeError: a volume cannot be read or is constant, or the report cannot be written.
    """
    _check_packages(reference or second_scan)
    if pixel_nm is not None and not 0 < pixel_nm < float("inf"):
        raise UsageError(f"`pixel_nm` is {pixel_nm}; give the side of an SR pixel in nm, above 0")
    if lpips is not None and reference is None and second_scan is None:
        raise UsageError("LPIPS compares with a reference; give `reference` or `second_scan`, or leave `lpips` out")
    if trust is not None and reference is None and second_scan is None:
        raise UsageError("trust is judged by the true error; give `reference` or `second_scan`, or leave `trust` out")
    start, stop = parse_slices(slices)
    tidy(Path(output).resolve())
    paths = {"reference": reference, "lr": lr, "second_scan": second_scan, "trust": trust}
    given = [within(Path(path))[0] for path in (sr, *paths.values()) if path is not None]
    final = check_report_folder(output, overwrite=overwrite, inputs=given)
    distance = _lpips(lpips)
    opened = open_inputs(
        sr, **paths, intensity_range=intensity_range, pixel_nm=pixel_nm, channel=channel, keep_data_bar=keep_data_bar
    )
    with opened as inputs:
        chosen = choose_slices(start, stop, inputs.sr.shape[0])
        places = choose_samples(inputs.sr.shape, chosen, samples, region, inputs.scale or 1)
        say(f"measure {len(places)} of {len(chosen)} slices, {places[0].shape[0]} x {places[0].shape[1]} px of each")
        evaluation = _measured(inputs, chosen, places, distance, say)

        from emsr_fast.evaluate.page import page
        from emsr_fast.evaluate.tables import as_csv, as_json, dumped

        content = as_json(evaluation, {"software": f"emsr_fast {__version__}", "definitions": DEFINITIONS})
        with report_folder(final, overwrite=overwrite) as folder:
            (folder / "slices.csv").write_text(as_csv(evaluation), encoding="utf-8")
            (folder / "report.json").write_text(dumped(content), encoding="utf-8")
            (folder / "report.html").write_text(page(evaluation), encoding="utf-8")
    return {**content, "report": str(final / "report.html")}


def _measured(
    inputs: EvaluationInputs, chosen: range, places: Sequence[Sample], lpips: Lpips | None, say: Callable[[str], None]
) -> Evaluation:
    evaluation = Evaluation(inputs, chosen)
    for place in places:
        try:
            images = inputs.read(place)
        except DamagedError as error:
            evaluation.leave_out(place, ("sr",), without_folders(str(error), *inputs.paths))
            say(f"skipped {evaluation.skipped[-1]}")
            continue
        flat = [name for name, image in images.items() if image.min() == image.max()]
        if flat:
            reason = " and ".join(f"{name} is constant ({images[name].flat[0]:g})" for name in flat)
            evaluation.leave_out(place, images, reason)
            say(f"skipped {evaluation.skipped[-1]}")
            continue
        evaluation.add(place, measure_sample(images, place, inputs, lpips))
        expected = inputs.read_trust(place)
        if expected is not None and inputs.fixed_name is not None:
            evaluation.trust.add(expected, images["sr"], images[inputs.fixed_name])
        say(f"{place.describe()}{_in_short(evaluation)}")
    if not evaluation.samples:
        raise VolumeError(
            f"nothing to measure in {inputs.sr.info.path}: {evaluation.skipped[0]}; give volumes with contrast, "
            "or other `slices`"
        )
    return evaluation


def _in_short(evaluation: Evaluation) -> str:
    """Return the PSNR of the last sample in words, "" without a reference."""
    ours, bicubic = (evaluation.values(name, "psnr_db") for name in ("sr", "bicubic"))
    if np.isnan(ours[-1]):
        return ""
    if np.isinf(ours[-1]):
        return f": {decibels(ours[-1])}"
    return f": PSNR {decibels(ours[-1])}" + (f" (bicubic {ours[-1] - bicubic[-1]:+.2f})" if bicubic.size else "")


def _check_packages(compares: object) -> None:
    needed = ("skimage", "torchmetrics") if compares else ()
    if any(importlib.util.find_spec(name) is None for name in needed):
        raise UsageError(lacking("comparing with a reference", "evaluate"))


def _lpips(path: str | Path | None) -> Lpips | None:
    if path is None:
        return None
    from emsr_fast.metrics.perceptual import Lpips

    return Lpips(Path(path))
