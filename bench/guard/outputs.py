"""Compare what `emsr-fast infer` writes at two commits, byte for byte; exit 1 where it differs.

    python bench/guard/outputs.py BASE [HEAD]

Both commits are installed side by side, as compare.py does, and run the same commands: every output format, both
OME-Zarr versions, tiles, a region, array-job shares, a run that is killed and repeated, and the maps of trust.
What may differ is left out of the comparison: the version of the software, and the identity of the run that follows
from it. Exit codes: 0 equal, 1 something differs, 2 a commit that cannot be installed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import h5py
import mrcfile
import numpy as np
import tifffile

from compare import NATIVE, commit_of, environment, install, same

ROOT = Path(__file__).resolve().parents[2]

STACK = ROOT / "examples" / "data" / "flyem_fibsem_10nm_48x192x192.tif"
SOFTWARE = re.compile(r"emsr_fast \d[\w.+]*")
FREE = ("run", "software")  # provenance that follows from the version
# name of the output: options of infer; a tuple of lists is several commands, one after the other
CASES: dict[str, tuple[list[str], ...]] = {
    "plain.ome.zarr": (["in8.tif"],),
    "old.ome.zarr": (["in8.tif", "--ome-zarr", "0.4"],),
    "plain.ome.tif": (["in16.tif"],),
    "plain.h5": (["in16.tif", "--range", "100:3000"],),
    "plain.mrc": (["float.tif"],),
    "float.ome.zarr": (["float.tif", "--tile", "32", "--halo", "16"],),
    "roi.ome.zarr": (["in8.tif", "--roi", "1,8,12:4,77,96", "--tile", "48"],),
    "roi.ome.tif": (["in8.tif", "--roi", "1,8,12:4,77,96"],),
    "slices.h5": (["in8.tif", "--slices", "2:5"],),
    "resampled.ome.zarr": (["in8.tif", "--input-voxel", "20"],),
    "shares.ome.zarr": tuple(
        ["in8.tif", "--tile", "32", "--max-memory", "30MB", "--shard", f"{n}/3"] for n in (2, 1, 3)
    ),
    "trust.ome.zarr": (["in8.tif", "--slices", "0:2", "--trust"],),
    "trust.ome.tif": (["in8.tif", "--slices", "0:2", "--trust"],),
}
KILLED = "killed.ome.zarr"


def make_inputs(folder: Path) -> None:
    """Write the inputs: a FIB-SEM crop of uint8, uint16 and float32, (6, 93, 110)."""
    stack = tifffile.imread(STACK)[:6, :93, :110]
    for name, pixels in (
        ("in8.tif", stack),
        ("in16.tif", stack.astype(np.uint16) * 12 + 100),
        ("float.tif", stack.astype(np.float32) / 100 - 1),
    ):
        tifffile.imwrite(folder / name, pixels, photometric="minisblack")


def command(options: Sequence[str], output: Path) -> list[str]:
    more = [] if "--input-voxel" in options else ["--input-voxel", "ignore"]
    start = [sys.executable, "-m", "emsr_fast", "infer", *options, "-o", str(output)]
    return [*start, *more, "--model", "emsr-x3-small", "--device", "cpu"]


def run(site: Path, inputs: Path, folder: Path) -> None:
    """Write every output of ``CASES`` into ``folder`` with the package in ``site``."""
    for name, calls in CASES.items():
        for options in calls:
            done = subprocess.run(
                command(options, folder / name),
                cwd=inputs,
                env=environment(site),
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise OSError(f"{site}: {name} {options}: exit {done.returncode}: {done.stderr[-600:]}")
    kill_and_repeat(site, inputs, folder / KILLED)


def kill_and_repeat(site: Path, inputs: Path, output: Path) -> None:
    """Kill a run once its first block is written, and repeat its command."""
    words = command(["in8.tif", "--tile", "16", "--halo", "8", "--max-memory", "20MB"], output)
    process = subprocess.Popen(words, cwd=inputs, env=environment(site), stderr=subprocess.DEVNULL)
    volume = output.with_name(f"{output.name}.partial") / "volume" / "0" / "c"
    while process.poll() is None and not any(path.is_file() for path in volume.rglob("*")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if not output.exists():
        subprocess.run(words, cwd=inputs, env=environment(site), capture_output=True, check=True)


def contents(path: Path) -> dict[str, str]:
    """Return a hash for each part of an output, by name; what may differ between versions is taken out."""
    if path.is_dir():
        files = (file for file in sorted(path.rglob("*")) if file.is_file())
        return {str(file.relative_to(path)): of_file(file) for file in files}
    if path.suffix == ".tif":
        with tifffile.TiffFile(path) as file:
            parts = {f"page {n}": digest(page.asarray()) for n, page in enumerate(file.pages)}
            return parts | {"description": digest(without_version(str(file.ome_metadata)))}
    if path.suffix == ".h5":
        parts = {}
        with h5py.File(path) as file:
            file.visititems(lambda name, item: parts.update(of_hdf5(name, item)))
            return parts | of_hdf5("/", file)
    with mrcfile.open(path, permissive=True) as file:
        header = file.header.copy()
        header["label"] = [
            without_version(label.decode(errors="replace")).encode() for label in header["label"].tolist()
        ]
        return {"pixels": digest(file.data), "header": digest(header.tobytes())}


def of_file(path: Path) -> str:
    if path.name not in ("zarr.json", ".zattrs"):
        return digest(path.read_bytes())
    return digest(json.dumps(cleaned(json.loads(path.read_text())), sort_keys=True))


def of_hdf5(name: str, item: h5py.Dataset | h5py.Group) -> dict[str, str]:
    attributes = {key: without_version(str(value)) for key, value in item.attrs.items() if key not in FREE}
    parts = {f"{name} attributes": digest(json.dumps(attributes, sort_keys=True))}
    return parts | {name: digest(item[()])} if isinstance(item, h5py.Dataset) else parts


def cleaned(value: object) -> object:
    """Return JSON values without what follows from the version."""
    if isinstance(value, dict):
        return {key: cleaned(inner) for key, inner in value.items() if key not in FREE}
    if isinstance(value, list):
        return [cleaned(inner) for inner in value]
    return without_version(value) if isinstance(value, str) else value


def without_version(text: str) -> str:
    text = SOFTWARE.sub("emsr_fast", text)
    for key in FREE:  # in XML and JSON inside text
        text = re.sub(rf'("{key}"|K="{key}")[^,<}}]*', key, text)
        text = re.sub(rf"\b{key}=[^;]*", key, text)  # labels of MRC
    return re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d", "", text)


def digest(value: bytes | str | np.ndarray) -> str:
    if isinstance(value, np.ndarray):
        value = f"{value.dtype} {value.shape}".encode() + np.ascontiguousarray(value).tobytes()
    return hashlib.sha256(value.encode() if isinstance(value, str) else value).hexdigest()[:16]


def different(base: Path, head: Path) -> list[str]:
    """Return a line for each part of two outputs that differs."""
    found = [contents(path) if path.exists() else {} for path in (base, head)]
    names = sorted({*found[0], *found[1]})
    lines = [f"{base.name}: {name}" for name in names if found[0].get(name) != found[1].get(name)]
    return lines if names else [f"{base.name}: not written"]


def compare(base: str, head: str) -> int:
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        for part in ("base", "head", "in", "out-base", "out-head"):
            (top / part).mkdir()
        try:
            first = install(base, top / "base", None)
            second = install(head, top / "head", first if same(base, head, NATIVE) else None)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"outputs: cannot install both commits: {error}", file=sys.stderr)
            return 2
        make_inputs(top / "in")
        run(first, top / "in", top / "out-base")
        run(second, top / "in", top / "out-head")
        # outputs that stand beside others, such as maps of trust of a TIFF, are found here
        names = sorted({path.name for part in ("out-base", "out-head") for path in (top / part).iterdir()})
        lines = [line for name in names for line in different(top / "out-base" / name, top / "out-head" / name)]
    for line in lines:
        print(f"differs: {line}")
    print(f"{len(names)} outputs, {len(lines)} parts differ between {base[:12]} and {head[:12]}")
    return 1 if lines else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="commit")
    parser.add_argument("head", nargs="?", default="HEAD", help="commit")
    arguments = parser.parse_args()
    base, head = commit_of(arguments.base), commit_of(arguments.head)
    if base is None or head is None:
        sys.exit(f"outputs: this clone does not have both {arguments.base} and {arguments.head}")
    os.environ.setdefault("EMSR_CUDA", "OFF")
    return compare(base, head)


if __name__ == "__main__":
    sys.exit(main())
