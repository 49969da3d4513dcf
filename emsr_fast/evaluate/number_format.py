"""Numbers as text, with their units."""

from __future__ import annotations

import numpy as np


def length(pixels: float, pixel_nm: float | None) -> str:
    """Return a length given in SR pixels: "42.1 nm (4.21 px)", or in pixels alone."""
    return f"{pixels:.2f} px" if pixel_nm is None else f"{pixels * pixel_nm:.3g} nm ({pixels:.2f} px)"


def share(fraction: float) -> str:
    """Return a fraction in per cent: "0.03 %"."""
    return f"{100 * fraction:.2g} %" if fraction < 0.1 else f"{100 * fraction:.0f} %"


def change(values: np.ndarray, unit: str) -> str:
    """Return mean and standard deviation of differences: "+0.23 dB on average (SD 0.04)"."""
    digits = 2 if unit == "dB" else 4
    spread = f" (SD {values.std(ddof=1):.{digits}f})" if values.size > 1 else ""
    return f"{values.mean():+.{digits}f}{' ' + unit if unit else ''} on average{spread}"


def decibels(value: float) -> str:
    """Return a PSNR: "31.20 dB", or that the images are identical."""
    return "identical (infinite PSNR)" if np.isinf(value) else f"{value:.2f} dB"


def cell(value: float | None) -> str:
    """Return a figure for a table; a dash if it is missing."""
    if value is None or np.isnan(value):
        return "-"
    if np.isinf(value):
        return "∞"
    if value != 0 and abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}" if abs(value) >= 1 else f"{value:.4f}"
