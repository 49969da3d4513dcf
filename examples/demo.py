"""The demonstration behind ``make demo``: real electron microscopy, made three times coarser and brought back.

    python examples/demo.py [OUTPUT_FOLDER]

Takes the FIB-SEM stack in examples/data (Drosophila medulla, 10 nm voxels, CC BY 3.0, Janelia FlyEM), averages 3x3
pixels to a stack with 30 nm pixels, runs ``emsr-fast infer`` on that, and puts the results beside the original.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from emsr_fast.io.registry import create_target, open_source
from emsr_fast.io.volume import SourceVolume, TargetSpec
from emsr_fast.pictures import degrade, demo_sheet

HERE = Path(__file__).resolve().parent
ORIGINAL = HERE / "data" / "flyem_fibsem_10nm_48x192x192.tif"
Z_NM = 10.0  # from the data's documentation; the file states y and x only
SCALE = 3


def main() -> int:
    """Run the demonstration; return the exit code."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parent / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    low_path, result_path = folder / "lr_30nm.ome.tif", folder / "emsr_10nm.ome.zarr"
    with open_source(ORIGINAL) as source:
        original = _all_of(source)
        _, y, x = source.info.voxel_size_nm
    if y is None or x is None:
        raise SystemExit(f"{ORIGINAL} states no pixel size; check it out again")
    low = degrade(original, SCALE)
    _write_stack(low_path, low, (Z_NM, y * SCALE, x * SCALE))
    command = [sys.executable, "-m", "emsr_fast", "infer", str(low_path), "-o", str(result_path), "--overwrite"]
    print("$ emsr-fast", *command[3:], flush=True)
    if code := subprocess.run(command, check=False).returncode:
        return code
    with open_source(result_path) as source:
        super_resolved = _all_of(source)
    sheet_path = folder / "side_by_side.png"
    decibels = demo_sheet(low, super_resolved, original, sheet_path)
    print("PSNR against the original, all slices, after an affine fit:")
    for name, value in decibels.items():
        print(f"  {name:<8}{value:.2f} dB")
    print(f"coarse stack       {low_path}")
    print(f"super-resolved     {result_path}")
    print(f"side by side       {sheet_path}")
    return 0


def _all_of(source: SourceVolume) -> np.ndarray:
    depth, height, width = source.shape
    return np.stack([source.read(z, slice(0, height), slice(0, width)) for z in range(depth)])


def _write_stack(path: Path, volume: np.ndarray, voxel_nm: tuple[float, float, float]) -> None:
    spec = TargetSpec(volume.shape, volume.dtype, scale=1, voxel_size_nm=voxel_nm)
    with create_target(path, spec, overwrite=True) as target:
        _, height, width = volume.shape
        for index, image in enumerate(volume):
            target.write(index, slice(0, height), slice(0, width), image)
        target.commit()


if __name__ == "__main__":
    sys.exit(main())
