"""The report in words: what was measured, what was found, and what it cannot tell."""

from __future__ import annotations

import numpy as np

from emsr_fast.evaluate.number_format import change, decibels, length, share
from emsr_fast.evaluate.results import Evaluation
from emsr_fast.metrics import CutOff, cut_off
from emsr_fast.wording import listed

_MOST_SHIFT_PX = 0.5
_SEAM_Z = 3.0
_NAMED = 3  # slices left out that are named one by one
_NOTABLE_CLIPPING = 1e-3
# decorrelation and correlation are different measures: less apart than this is no finding
_FINER = 0.9


def summary(evaluation: Evaluation) -> list[tuple[str, list[str]]]:
    """Return headings with their sentences."""
    return [
        ("What was measured", _measured(evaluation)),
        ("What was found", [*_fidelity(evaluation), *_detail(evaluation), *_defects(evaluation)]),
        ("What this cannot tell", _limits(evaluation)),
    ]


def _measured(evaluation: Evaluation) -> list[str]:
    inputs, samples = evaluation.inputs, evaluation.samples
    _, height, width = inputs.sr.shape
    part = samples[0].shape[0] * samples[0].shape[1] / (height * width)
    region = "each of them whole" if part == 1 else (
        f"in each a region of {samples[0].shape[0]} x {samples[0].shape[1]} px, {share(part)} of the slice; "
        "the regions are spread over the field"
    )  # fmt: skip
    model = f", made by {inputs.provenance.model}" if inputs.provenance.model else ""
    told = [f"{len(samples)} of {len(evaluation.slices)} slices of {inputs.sr.info.path.name}{model}; {region}."]
    if evaluation.skipped:
        told.append(_left_out(evaluation))
    grey = inputs.grey
    if inputs.fixed_name:
        told.append(
            f"Images were compared with the {inputs.fixed_name} after fitting one gain and one offset by least "
            f"squares, so that contrast and brightness do not count. Data range {grey.high - grey.low:g} "
            f"({grey.low:g} to {grey.high:g}, {grey.origin})."
        )
    else:
        told.append("There was no reference and no second scan: nothing here says whether what is seen is true.")
    told.append(
        f"One SR pixel is {inputs.pixel_nm:.4g} nm ({inputs.pixel_nm_from})."
        if inputs.pixel_nm is not None
        else f"The size of a pixel is not known: {inputs.pixel_nm_from}."
    )
    return told


def _left_out(evaluation: Evaluation) -> str:
    skipped = evaluation.skipped
    see = ", see slices.csv" if len(skipped) > _NAMED else ""
    reasons = listed(skipped, _NAMED, "; ")
    told = f"{left_out_in_short(evaluation)}. No figure and no average counts them: {reasons}{see}."
    # a result without contrast is a failure of the result; a reference without it is not
    failed = any("sr is constant" in row["left_out"] for row in evaluation.left_out)
    return f"Warning: {told}" if failed else told


def left_out_in_short(evaluation: Evaluation) -> str:
    """Return a text such as "1 of 5 slices left out: constant or unreadable"; "" if none was left out."""
    skipped = len(evaluation.skipped)
    constant = [" is constant (" in reason for reason in evaluation.skipped]
    kinds = [*(["constant"] if any(constant) else []), *(["unreadable"] if not all(constant) else [])]
    whole = skipped + len(evaluation.samples)
    return f"{skipped} of {whole} slices left out: {' or '.join(kinds)}" if skipped else ""


def _fidelity(evaluation: Evaluation) -> list[str]:
    ours, bicubic = evaluation.values("sr", "psnr_db"), evaluation.values("bicubic", "psnr_db")
    fixed = evaluation.inputs.fixed_name
    if fixed is None:
        return []
    rest = ours[np.isfinite(ours)]
    if not bicubic.size:
        return [
            *_identical(ours, fixed),
            *([f"The PSNR of SR against the {fixed} is {decibels(rest.mean())} on average."] if rest.size else []),
            "Without the LR volume nothing says whether this is better than plain interpolation.",
        ]
    with np.errstate(invalid="ignore"):
        gain = ours - bicubic
    better = int((gain > 0).sum())
    plain = "bicubic interpolation of LR (Keys, a = -0.5)"
    told = f"SR is closer to the {fixed} than {plain} in {better} of {gain.size} slices"
    if np.isfinite(gain).all():
        told += f": PSNR {change(gain, 'dB')}"
        structure = evaluation.values("sr", "ssim") - evaluation.values("bicubic", "ssim")
        told += f", SSIM {change(structure, '')}".rstrip() if np.isfinite(structure).all() else ""
    return [*_identical(ours, fixed), f"{told}."]


def _identical(ours: np.ndarray, fixed: str) -> list[str]:
    equal = int(np.isinf(ours).sum())
    where = "" if equal == 1 == ours.size else f" in {equal} of {ours.size} slices"
    return [f"SR and the {fixed} are {decibels(np.inf)}{where}."] if equal else []


def _detail(evaluation: Evaluation) -> list[str]:
    inputs, told = evaluation.inputs, []
    partner = "second scan" if inputs.second_scan else "reference"
    found = {name: cut_off(one.together) for name, one in evaluation.ring_curves.items()}
    if "sr" in found:
        told.append(
            f"Fourier ring correlation (1/7 criterion, all slices together): SR and the {partner} "
            f"{_agree(found['sr'], inputs.pixel_nm)}."
        )
        others = [
            f"{_NAMES[name]} and the {partner} {_agree(cut, inputs.pixel_nm)}"
            for name, cut in found.items()
            if name != "sr"
        ]
        if others:
            told.append(f"For comparison: {'; '.join(others)}.")
    own = evaluation.mean("sr", "decorrelation_px")
    confirmed = found["sr"].resolution_px if "sr" in found else None
    if own is not None:
        told.append(
            f"The finest detail that SR itself shows is {length(own, inputs.pixel_nm)} (decorrelation analysis)."
        )
    if own is not None and confirmed is not None and own < _FINER * confirmed:
        told.append(
            f"This is finer than what the {partner} confirms: detail between {length(own, inputs.pixel_nm)} and "
            f"{length(confirmed, inputs.pixel_nm)} may be invented, noise, or lost in the noise of the {partner}."
        )
    if evaluation.single_curves and "sr" not in found:
        cut = cut_off(evaluation.single_curves["sr"].together)
        told.append(f"The two halves of a chessboard of SR {_agree(cut, inputs.pixel_nm, chessboard=True)}.")
    return told


_NAMES = {"bicubic": "bicubic interpolation", "reference": "the reference", "second scan": "the second scan"}


def _agree(cut: CutOff, pixel_nm: float | None, chessboard: bool = False) -> str:
    if cut.limit == "crossing" and cut.resolution_px is not None:
        return f"agree down to {length(cut.resolution_px, pixel_nm)}"
    if cut.limit == "sampling":
        return f"agree down to the finest detail that can be seen this way, {length(4 if chessboard else 2, pixel_nm)}"
    return "share no detail at all"


def _defects(evaluation: Evaluation) -> list[str]:
    told = []
    shift = evaluation.mean("sr", "shift_px")
    if shift is not None and shift > _MOST_SHIFT_PX:
        told.append(
            f"Warning: SR and the {evaluation.inputs.fixed_name} are displaced by {shift:.2f} px. This lowers every "
            "figure of the comparison, for SR and bicubic alike: register them first."
        )
    z, ratio = evaluation.mean("sr", "seam_z"), evaluation.mean("sr", "seam_ratio")
    if z is not None and ratio is not None:
        verdict = "Borders between tiles show" if z > _SEAM_Z else "Borders between tiles do not show"
        told.append(
            f"{verdict}: the jump across them is {ratio:.2f} times that across other lines ({z:.1f} standard errors)."
        )
    else:
        told.append("Seams were not looked for: the file does not tell its tiles, or no border is in the regions.")
    clipped = evaluation.mean("sr", "clipped_fraction")
    if clipped is not None:
        told.append(
            f"{share(clipped)} of SR's pixels are at the ends of the dtype's range"
            + (", where detail may be cut off." if clipped > _NOTABLE_CLIPPING else ".")
        )
    return told


def _limits(evaluation: Evaluation) -> list[str]:
    inputs, told = evaluation.inputs, []
    if inputs.reference is not None:
        told.append(
            "The reference has noise of its own, which counts as error; no method reaches a perfect score. If LR was "
            "made from this very reference, they share noise, and figures flatter whoever keeps it."
        )
    if inputs.second_scan is not None:
        told.append(
            "The correlation with the second scan is evidence only if that scan is independent: another exposure, not "
            "processed together, and not itself the output of the same network, which invents the same things twice."
        )
    elif inputs.reference is not None:
        told.append(
            "Nothing says that the reference is independent of LR: the ring correlation with it may count shared noise "
            "as detail. A second scan (`second_scan`) would settle it."
        )
    else:
        told.append(
            "Measures of one image alone tell how fine its texture is, not whether it is there in the specimen: "
            "invented detail counts as resolution, and smoothed noise too. A second scan (`second_scan`) would tell "
            "them apart."
        )
    told.append(
        "Averages hide places: a figure over a region says nothing of a single membrane or vesicle. Look at the "
        "images, and do not conclude from structures that only SR shows."
    )
    if evaluation.decorrelations:
        told.append(
            "Decorrelation analysis takes noise to be white beyond the finest detail. Networks and interpolation leave "
            "hardly any there: what it says of SR and bicubic depends on their filters as well as on the specimen."
        )
    if len(evaluation.samples) < len(evaluation.slices) or evaluation.samples[0].shape != inputs.sr.shape[1:]:
        told.append("Slices and regions that were not sampled were not looked at.")
    return told
