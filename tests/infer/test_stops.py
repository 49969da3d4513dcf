"""A stop in the middle of a block: its tiles are kept, done once, and end in the same bytes; never used if unsure."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
import tifffile

from emsr_fast.errors import PartialError
from emsr_fast.infer.job import infer
from emsr_fast.infer.verify import verify
from many_blocks import AS_OPTIONS, MANY_BLOCKS

TILE_PX = 32 * 32  # of MANY_BLOCKS: 12 blocks of 4 slices of 4 tiles
BLOCK_TILES, ALL_TILES = 16, 192

# the command line, which gets a signal when so many tiles are done
SIGNALLED = """
import os, sys
from contextlib import contextmanager
from emsr_fast.cli import main, progress
tiles, number = int(sys.argv[1]), int(sys.argv[2])

@contextmanager
def counting(lr_pixels):
    done = []
    def count(pixels):
        done.append(pixels)
        if len(done) == tiles:
            os.kill(os.getpid(), number)
    yield count

progress.progress = counting
sys.exit(main(sys.argv[3:]))
"""

# the command line, whose saving takes for ever
SLOW_TO_SAVE = """
import time
from emsr_fast.infer import stopped
stopped.write_durably = lambda *arguments: time.sleep(600)
"""


def bytes_of(path):
    """Every file below ``path`` and a hash of its content."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return {str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def after_tiles(tiles):
    """A progress that stops a run as Ctrl-C does, after so many tiles."""

    @contextmanager
    def counting(lr_pixels):
        done = []

        def count(pixels):
            done.append(pixels)
            if len(done) == tiles:
                raise KeyboardInterrupt

        yield count

    return counting


def stop(source, output, tiles, **options):
    """Run until so many tiles are done; return the files that keep them."""
    with pytest.raises(KeyboardInterrupt):
        infer(source, output, progress=after_tiles(tiles), **MANY_BLOCKS | options)
    return sorted(output.with_name(f"{output.name}.partial").glob("stopped/*"))


@pytest.mark.parametrize(
    ("name", "tiles", "number"),
    [("a.zarr", 7, signal.SIGINT), ("a.tif", 2 * BLOCK_TILES + 9, signal.SIGTERM)],
)
def test_a_signal_in_mid_block_loses_no_finished_tile(stack, tmp_path, name, tiles, number):
    (tmp_path / "undisturbed").mkdir()
    (tmp_path / "stopped").mkdir()
    arguments = ["infer", str(stack), "--json", *AS_OPTIONS]
    undisturbed, output = tmp_path / "undisturbed" / name, tmp_path / "stopped" / name
    subprocess.run(
        [sys.executable, "-m", "emsr_fast", *arguments, "-o", undisturbed], check=True, capture_output=True, timeout=120
    )
    command = [sys.executable, "-c", SIGNALLED, str(tiles), str(int(number)), *arguments, "-o", str(output)]
    stopped = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert stopped.returncode == 128 + number, stopped.stderr
    kept = f"stopped by {number.name}; what is done is kept in {output}.partial; repeat the command to go on"
    assert stopped.stderr.splitlines()[-1] == f"error: {kept}"
    assert json.loads(stopped.stdout) == {"error": kept, "exit_code": 128 + number}
    assert not output.exists()
    again = subprocess.run(
        [sys.executable, "-m", "emsr_fast", *arguments, "-o", output], capture_output=True, text=True, timeout=120
    )
    assert again.returncode == 0, again.stderr
    if tiles % BLOCK_TILES:
        index = (tiles // BLOCK_TILES, 0, 0)
        assert f"resume  {tiles % BLOCK_TILES} of {BLOCK_TILES} tiles of block {index} are done" in again.stderr
    done = json.loads(again.stdout)
    assert done["blocks_done_before"] == tiles // BLOCK_TILES
    assert done["lr_pixels"] == (ALL_TILES - tiles) * TILE_PX
    assert bytes_of(output) == bytes_of(undisturbed)
    assert [entry.name for entry in output.parent.iterdir()] == [name]


def test_a_second_stop_adds_to_what_the_first_kept(stack, tmp_path, use_nearest):
    use_nearest()
    infer(stack, tmp_path / "undisturbed.zarr", **MANY_BLOCKS)
    for _ in range(4):
        (kept,) = stop(stack, tmp_path / "a.zarr", 3)
        assert kept.name == "0-0-0.tiles"
    # a stop before the first tile of a run takes nothing away
    engine = use_nearest()
    engine.run = None
    with pytest.raises(TypeError):
        infer(stack, tmp_path / "a.zarr", **MANY_BLOCKS)
    engine = use_nearest()
    done = infer(stack, tmp_path / "a.zarr", **MANY_BLOCKS)
    assert (len(engine.shapes), done["lr_pixels"]) == (ALL_TILES - 12, (ALL_TILES - 12) * TILE_PX)
    undisturbed, resumed = (bytes_of(tmp_path / f"{name}.zarr") for name in ("undisturbed", "a"))
    assert {file for file in undisturbed if undisturbed[file] != resumed[file]} <= {"zarr.json"}  # has its name in it


def test_maps_of_trust_are_kept_too(stack, tmp_path):
    options = {"trust": True, "roi": "0,0,0:8,32,32"}
    (tmp_path / "b").mkdir()
    infer(stack, tmp_path / "b" / "a.zarr", **MANY_BLOCKS | options)
    assert len(stop(stack, tmp_path / "a.zarr", 3, **options)) == 1
    done = infer(stack, tmp_path / "a.zarr", **MANY_BLOCKS | options)
    assert done["lr_pixels"] == 5 * TILE_PX
    assert bytes_of(tmp_path / "a.zarr") == bytes_of(tmp_path / "b" / "a.zarr")


def test_every_share_of_an_array_job_keeps_its_own(stack, tmp_path, use_nearest):
    engine = use_nearest()
    (tmp_path / "b").mkdir()
    infer(stack, tmp_path / "b" / "a.zarr", **MANY_BLOCKS)
    stop(stack, tmp_path / "a.zarr", 5, shard="1/2")
    kept = stop(stack, tmp_path / "a.zarr", 6, shard="2/2")
    assert [path.name for path in kept] == ["0-0-0.tiles", "6-0-0.tiles"]
    engine.shapes.clear()
    first = infer(stack, tmp_path / "a.zarr", **MANY_BLOCKS, shard="1/2")
    second = infer(stack, tmp_path / "a.zarr", **MANY_BLOCKS, shard="2/2")
    assert (first["complete"], second["complete"]) == (False, True)
    assert len(engine.shapes) == ALL_TILES - 5 - 6
    assert bytes_of(tmp_path / "a.zarr") == bytes_of(tmp_path / "b" / "a.zarr")


def damage(kept, other):
    data = bytearray(kept.read_bytes())
    data[len(data) // 2] ^= 1
    kept.write_bytes(data)


def cut(kept, other):
    kept.write_bytes(kept.read_bytes()[:-100])


def empty(kept, other):
    kept.write_bytes(b"")


def of_another_run(kept, other):
    shutil.copy(other, kept)


@pytest.mark.parametrize("spoil", [damage, cut, empty, of_another_run])
def test_what_is_damaged_or_of_another_run_is_not_used(stack, tmp_path, use_nearest, spoil):
    engine = use_nearest()
    (tmp_path / "b").mkdir()
    infer(stack, tmp_path / "b" / "a.zarr", **MANY_BLOCKS)
    (other,) = stop(stack, tmp_path / "c.zarr", 9, intensity_range="0:100")
    (kept,) = stop(stack, tmp_path / "a.zarr", 9)
    spoil(kept, other)
    engine.shapes.clear()
    said = []
    infer(stack, tmp_path / "a.zarr", **MANY_BLOCKS, say=said.append)
    notes = [line for line in said if line.startswith("note ") and "a stop kept" in line]
    assert notes == ["note    what a stop kept of block (0, 0, 0) is damaged or of other tiles; it is done again"]
    assert len(engine.shapes) == ALL_TILES
    assert bytes_of(tmp_path / "a.zarr") == bytes_of(tmp_path / "b" / "a.zarr")


def test_a_slice_that_could_not_be_read_is_tried_again_after_a_stop(stack, tmp_path, use_nearest):
    use_nearest()
    folder = tmp_path / "slices"
    folder.mkdir()
    options = {"roi": "0,0,0:8,64,64"}
    for z, image in enumerate(tifffile.imread(stack)[:8, :64, :64]):
        tifffile.imwrite(folder / f"{z}.tif", image, photometric="minisblack", compression="zlib")
    good = (folder / "1.tif").read_bytes()
    (folder / "1.tif").write_bytes(good[:-900] + bytes(900))
    assert len(stop(folder, tmp_path / "a.zarr", 11, **options)) == 1
    shutil.copytree(tmp_path / "a.zarr.partial", tmp_path / "b.zarr.partial")
    with pytest.raises(PartialError, match=r"1 slice could not be done, .*slice 1: "):
        infer(folder, tmp_path / "b.zarr", **MANY_BLOCKS | options)
    (folder / "1.tif").write_bytes(good)
    # 7 tiles of the other slices are kept
    done = infer(folder, tmp_path / "a.zarr", **MANY_BLOCKS | options)
    assert done["lr_pixels"] == (2 * BLOCK_TILES - 7) * TILE_PX
    assert verify(tmp_path / "a.zarr")["complete"]
    (tmp_path / "c").mkdir()
    infer(folder, tmp_path / "c" / "a.zarr", **MANY_BLOCKS | options)
    # zarr.json differs: the input was another when the run began
    assert bytes_of(tmp_path / "a.zarr" / "0" / "c") == bytes_of(tmp_path / "c" / "a.zarr" / "0" / "c")


def test_a_tile_halved_for_want_of_memory_does_not_meet_larger_ones(stack, tmp_path, use_nearest):
    options = {"slices": ":4", "input_voxel": "ignore"}
    use_nearest()
    with pytest.raises(KeyboardInterrupt):
        infer(stack, tmp_path / "a.zarr", progress=after_tiles(2), **options)
    # the second run has a smaller GPU
    engine = use_nearest(largest_px=120 * 120)
    infer(stack, tmp_path / "a.zarr", **options)
    assert sum(shape == (192, 192) for shape in engine.shapes) == 1
    use_nearest()
    (tmp_path / "b").mkdir()
    infer(stack, tmp_path / "b" / "a.zarr", **options)
    mine, theirs = (tmp_path / "a.zarr" / "0" / "c" / "0" / "0" / "0", tmp_path / "b/a.zarr/0/c/0/0/0")
    assert mine.read_bytes() == theirs.read_bytes()


def test_a_disk_that_is_full_is_said_and_the_stop_goes_on(stack, tmp_path, use_nearest, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    use_nearest()
    monkeypatch.setattr("emsr_fast.infer.stopped.write_durably", full)
    said = []
    assert stop(stack, tmp_path / "a.zarr", 5, say=said.append) == []
    assert "could not be saved, and is lost: [Errno 28] No space left on device" in said[-1]
    assert not list(tmp_path.iterdir())


def test_a_second_ctrl_c_ends_at_once_while_the_first_is_saving(stack, tmp_path):
    (tmp_path / "b").mkdir()
    output, expected = tmp_path / "a.zarr", tmp_path / "b" / "a.zarr"
    arguments = ["infer", str(stack), *AS_OPTIONS]
    program = SLOW_TO_SAVE + SIGNALLED
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(BLOCK_TILES + 5), "2", *arguments, "-o", output],
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stderr:
        if "saving what is done" in line:
            break
    time.sleep(1.2)
    assert process.poll() is None
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert time.monotonic() - start < 5
    assert process.stderr.read().endswith("error: ended at once by a second SIGINT\n")
    # as after a kill: the block at work is lost, nothing else
    infer(stack, expected, **MANY_BLOCKS, device="cpu")
    done = infer(stack, output, **MANY_BLOCKS, device="cpu")
    assert done["blocks_done_before"] == 1
    assert bytes_of(output) == bytes_of(expected)
