"""Write nanopyx_figures.json: what nanopyx 2.1.5 finds in images whose cut-off is known, to compare with.

    pip install nanopyx==2.1.5 && python tests/data/nanopyx_figures.py

nanopyx brings too many packages for a test to install it. Resolutions in pixels.
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import tifffile

HERE = Path(__file__).resolve().parent
STACK = HERE.parents[1] / "examples" / "data" / "flyem_fibsem_10nm_48x192x192.tif"
CUT_OFFS = (0.15, 0.2, 0.25, 0.3, 0.35)  # cycles per pixel
NOISE = 4.0  # grey levels


def scans_of(image, cut_off):
    """Return two scans of a real slice without anything beyond ``cut_off``, with noise of their own, (2, H, W)."""
    rng = np.random.default_rng(int(1000 * cut_off))
    exact = image.astype(np.float64)
    # mirrored to twice the size, which is periodic: no edge brings back what is taken out
    wide = np.block([[exact, exact[:, ::-1]], [exact[::-1], exact[::-1, ::-1]]])
    place = np.hypot(np.fft.fftfreq(wide.shape[0])[:, None], np.fft.fftfreq(wide.shape[1])[None])
    # whitened within, so that there is detail up to the cut-off
    spectrum = np.fft.fft2(wide - wide.mean()) * np.where(place <= cut_off, place, 0)
    signal = np.fft.ifft2(spectrum).real
    return 128 + 15 * signal / signal.std() + NOISE * rng.standard_normal((2, *signal.shape))


def main():
    from nanopyx.core.analysis.decorr import DecorrAnalysis
    from nanopyx.core.analysis.frc import FIRECalculator

    image = tifffile.imread(STACK, key=0)
    frc, decorrelation = {}, {}
    for cut_off in CUT_OFFS:
        scans = scans_of(image, cut_off).astype(np.float32)
        frc[cut_off] = FIRECalculator(pixel_size=1.0, units="px").calculate_fire_number(scans[0], scans[1])
        analysis = DecorrAnalysis(pixel_size=1.0)
        analysis.run_analysis(scans[0])
        decorrelation[cut_off] = float(analysis.resolution)
    content = {"nanopyx": version("nanopyx"), "frc_px": frc, "decorrelation_px": decorrelation}
    (HERE / "nanopyx_figures.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
