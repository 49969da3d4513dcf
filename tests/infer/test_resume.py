"""Runs that end before their time: whatever stops them, the same command goes on, to the same bytes."""

import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import tifffile
import zarr

from emsr_fast.errors import PartialError, UsageError, VolumeError
from emsr_fast.infer import job, prepare
from emsr_fast.infer.gpu_tile import Gpu
from emsr_fast.infer.job import infer
from emsr_fast.infer.run import Run
from emsr_fast.infer.verify import verify
from many_blocks import AS_OPTIONS, MANY_BLOCKS


def bytes_of(path):
    """Every file below ``path`` and a hash of its content."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return {str(file.relative_to(path.parent)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def blocks_of(output):
    """The files of the full-resolution blocks of an unfinished ``output``."""
    level = output.with_name(f"{output.name}.partial") / "volume" / "0"
    return [file for file in level.rglob("*") if file.is_file() and file.name[0].isdigit()]


def stopped(stack, output, use_nearest, after=2, **options):
    """Begin a run that stops after a few blocks."""
    engine = use_nearest()
    run = engine.run

    def stop(batch):
        if len(engine.shapes) >= 4 * 4 * after:
            # what the network is done with is written behind it
            deadline = time.monotonic() + 30
            while len(blocks_of(output)) < after and time.monotonic() < deadline:
                time.sleep(0.01)
            raise KeyboardInterrupt
        return run(batch)

    engine.run = stop
    with pytest.raises(KeyboardInterrupt):
        infer(stack, output, **MANY_BLOCKS | options)
    engine.run = run
    return engine


def test_something_else_is_refused_with_what_differs(stack, tmp_path, use_nearest):
    output = tmp_path / "a.zarr"
    stopped(stack, output, use_nearest)
    with pytest.raises(VolumeError, match=r"settings\.tile was 32, is 16; .* rm -r .*a\.zarr\.partial"):
        infer(stack, output, **MANY_BLOCKS | {"tile": 16})
    with pytest.raises(VolumeError, match=r"settings\.range was 'measured', is '0:200'"):
        infer(stack, output, **MANY_BLOCKS, intensity_range="0:200")
    pixels = tifffile.imread(stack)
    tifffile.imwrite(tmp_path / "other.tif", pixels[::-1].copy(), photometric="minisblack")
    with pytest.raises(VolumeError, match=r"input\.sampled_slices\.0 was '\w{16}', is '\w{16}'"):
        infer(tmp_path / "other.tif", output, **MANY_BLOCKS)
    pixels[7, 3, 5] ^= 1
    tifffile.imwrite(tmp_path / "other.tif", pixels, photometric="minisblack")
    with pytest.raises(VolumeError, match=r"input\.sampled_slices\.7 was '\w{16}', is '\w{16}'; "):
        infer(tmp_path / "other.tif", output, **MANY_BLOCKS)
    # fewer rows, as with another answer to --keep-data-bar: that is said first
    tifffile.imwrite(tmp_path / "other.tif", pixels[:, :-4], photometric="minisblack")
    with pytest.raises(VolumeError, match=r"else: input\.shape was \(48, 192, 192\), is \(48, 188, 192\); "):
        infer(tmp_path / "other.tif", output, **MANY_BLOCKS)
    folder = tmp_path / "a.zarr.partial"
    run = Run.load(folder)
    model = dataclasses.replace(run.identity.model, sha256="0" * 64)
    identity = dataclasses.replace(run.identity, model=model)
    dataclasses.replace(run, identity=identity).save(folder, folder / "unfinished")
    with pytest.raises(VolumeError, match=r"model\.sha256 was '0{64}', is '[0-9a-f]{64}'"):
        infer(stack, output, **MANY_BLOCKS)
    # nothing was thrown away meanwhile
    assert len(blocks_of(output)) == 2


def test_a_copy_of_the_input_elsewhere_is_the_same_input(stack, tmp_path, use_nearest):
    stopped(stack, tmp_path / "a.zarr", use_nearest)
    shutil.copy(stack, tmp_path / "copy.tif")
    done = infer(tmp_path / "copy.tif", tmp_path / "a.zarr", **MANY_BLOCKS)
    assert done["blocks_done_before"] + done["blocks"] == 12
    assert done["blocks_done_before"] >= 1


def test_an_old_output_stays_until_the_new_one_is_complete(stack, tmp_path, use_nearest):
    use_nearest()
    infer(stack, tmp_path / "a.zarr", slices=":1", input_voxel="ignore")
    before = bytes_of(tmp_path / "a.zarr")
    with pytest.raises(VolumeError, match="`overwrite=True`"):
        infer(stack, tmp_path / "a.zarr", **MANY_BLOCKS)
    stopped(stack, tmp_path / "a.zarr", use_nearest, overwrite=True)
    assert bytes_of(tmp_path / "a.zarr") == before
    infer(stack, tmp_path / "a.zarr", **MANY_BLOCKS, overwrite=True)
    assert zarr.open_group(tmp_path / "a.zarr", mode="r")["0"].shape == (48, 192, 192)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zarr"]


def test_two_runs_do_not_write_one_output(stack, tmp_path, use_nearest):
    stopped(stack, tmp_path / "a.zarr", use_nearest)
    with (tmp_path / "a.zarr.partial" / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(VolumeError, match="another process is writing"):
            infer(stack, tmp_path / "a.zarr", **MANY_BLOCKS)


@pytest.fixture
def damaged(stack, tmp_path):
    """A folder of 24 slices, of which number 5 does not decode, and that slice as it should be."""
    folder = tmp_path / "slices"
    folder.mkdir()
    for z, image in enumerate(tifffile.imread(stack)[:24, :64, :64]):
        tifffile.imwrite(folder / f"{z:03}.tif", image, photometric="minisblack", compression="zlib")
    good = (folder / "005.tif").read_bytes()
    (folder / "005.tif").write_bytes(good[:-900] + bytes(900))
    return folder, good


@pytest.mark.parametrize("name", ["a.zarr", "a.tif"])
def test_a_bad_slice_stops_nothing_and_the_same_command_retries_just_that(damaged, tmp_path, use_nearest, name):
    folder, good = damaged
    engine = use_nearest()
    options = MANY_BLOCKS | {"roi": "0,0,0:24,64,64", "retry": lambda: "emsr-fast infer IN -o OUT"}
    with pytest.raises(PartialError, match=r"1 slice could not be done, .*slice 5: .* just those with: emsr-fast"):
        infer(folder, tmp_path / name, **options)
    assert not (tmp_path / name).exists()
    failed = json.loads((tmp_path / f"{name}.partial" / "failed.json").read_text())
    assert list(failed["slices"]) == ["5"]
    assert (failed["blocks"], failed["retry"]) == ([[1, 0, 0]], "emsr-fast infer IN -o OUT")
    found = verify(tmp_path / name)
    assert not found["complete"]
    assert any(problem.startswith("slice 5: ") for problem in found["problems"])
    written = zarr.open_group(tmp_path / f"{name}.partial" / "volume", mode="r")["0"][:]
    assert (written.reshape(24, -1).max(axis=1) > 0).tolist() == [z != 5 for z in range(24)]
    (folder / "005.tif").write_bytes(good)
    engine.shapes.clear()
    done = infer(folder, tmp_path / name, **options)
    # of six blocks of four slices of four tiles, one
    assert (done["blocks"], done["blocks_done_before"], len(engine.shapes)) == (1, 5, 16)
    assert verify(tmp_path / name)["complete"]
    infer(folder, tmp_path / f"b{name}", **options)
    ours, again = (
        zarr.open_group(p, mode="r")["0"][:] if name == "a.zarr" else tifffile.imread(p)
        for p in (tmp_path / name, tmp_path / f"b{name}")
    )
    assert (ours == again).all()


def test_an_output_without_its_bad_slices_says_so_wherever_it_goes(damaged, tmp_path, use_nearest):
    folder, _ = damaged
    use_nearest()
    with pytest.raises(PartialError):
        infer(folder, tmp_path / "a.zarr", **MANY_BLOCKS | {"roi": "0,0,0:24,64,64"})
    done = infer(folder, tmp_path / "a.zarr", finish=True)
    assert list(done["failed_slices"]) == [5]
    listed = zarr.open_group(tmp_path / "a.zarr", mode="r").attrs["emsr_fast"]["failed_slices"]
    assert list(listed) == ["5"]
    assert not verify(tmp_path / "a.zarr")["complete"]


def test_a_slice_with_nan_may_be_mended(stack, tmp_path, use_nearest):
    use_nearest()
    file, output = tmp_path / "nan.tif", tmp_path / "a.zarr"
    pixels = tifffile.imread(stack).astype(np.float32)
    mended, options = pixels[5].copy(), MANY_BLOCKS | {"roi": "0,0,0:8,64,64", "intensity_range": "0:255"}
    pixels[5, 30:34, 30:34] = np.nan
    tifffile.imwrite(file, pixels, photometric="minisblack")
    with pytest.raises(PartialError, match="slice 5"):
        infer(file, output, **options)
    pixels[5] = mended
    tifffile.imwrite(file, pixels, photometric="minisblack")
    assert infer(file, output, **options)["complete"]
    assert verify(output)["complete"]


def test_several_processes_share_an_output_and_the_last_completes_it(stack, tmp_path, use_nearest):
    use_nearest()
    infer(stack, tmp_path / "whole.zarr", **MANY_BLOCKS)
    output = tmp_path / "a.zarr"
    done = [infer(stack, output, **MANY_BLOCKS, shard=f"{i}/5") for i in (3, 1, 5, 2)]
    assert [d["complete"] for d in done] == [False] * 4
    assert sum(d["blocks"] for d in done) < 12
    with pytest.raises(PartialError, match=r"missing in .*; do them with: the same call without finish$"):
        infer(stack, output, finish=True)
    last = infer(stack, output, **MANY_BLOCKS, shard="4/5")
    assert last["complete"]
    assert sum(d["blocks"] for d in done) + last["blocks"] == 12
    assert {k.partition("/")[2]: v for k, v in bytes_of(output / "0").items()} == {
        k.partition("/")[2]: v for k, v in bytes_of(tmp_path / "whole.zarr" / "0").items()
    }


def test_an_array_job_may_start_all_at_once(stack, tmp_path):
    command = [sys.executable, "-m", "emsr_fast", "infer", str(stack), "-o", str(tmp_path / "a.zarr"), *AS_OPTIONS]
    jobs = [subprocess.Popen([*command, "--shard", f"{i}/3"], stderr=subprocess.PIPE, text=True) for i in (1, 2, 3)]
    results = [(job.communicate(timeout=120)[1], job.returncode) for job in jobs]
    assert [code for _, code in results] == [0, 0, 0], results
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zarr"]
    assert verify(tmp_path / "a.zarr")["complete"]


SMALL_GPU = Gpu(l2_bytes=8 << 20, multiprocessors=4, features=16, itemsize=2)


@pytest.mark.parametrize(
    ("first", "later"), [((None, "1/2"), (SMALL_GPU, "2/2")), ((SMALL_GPU, "2/2"), (None, "1/2"))], ids=["cpu", "gpu"]
)
def test_jobs_on_machines_that_choose_other_tiles_keep_to_one_plan(tmp_path, monkeypatch, use_nearest, first, later):
    pixels = np.random.default_rng(0).integers(1, 256, (2, 300, 700), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "in.tif", pixels, photometric="minisblack")
    use_nearest()
    begin = job._begin

    def run(card, share):
        monkeypatch.setattr(prepare, "gpu_of", lambda network, precision: card)
        return infer(tmp_path / "in.tif", tmp_path / "out.zarr", shard=share, max_memory="1.5GB", input_voxel="ignore")

    def begin_after_another(*arguments):
        monkeypatch.setattr(job, "_begin", begin)
        planned = arguments[2].plan
        assert not run(*first)["complete"]
        assert Run.load(tmp_path / "out.zarr.partial").plan != planned  # or this tests nothing
        return begin(*arguments)

    monkeypatch.setattr(job, "_begin", begin_after_another)
    assert run(*later)["complete"]
    written = zarr.open_array(tmp_path / "out.zarr" / "0", mode="r")[:]
    assert np.array_equal(written[..., 1::3, 1::3].reshape(pixels.shape), pixels)


def test_verify_finds_what_is_missing_damaged_or_not_finite(stack, tmp_path, use_nearest):
    use_nearest()
    output = tmp_path / "a.zarr"
    for options in ({}, {"ome_zarr": "0.4"}):
        infer(stack, output, **MANY_BLOCKS, **options, overwrite=True)
        found = verify(output)
        assert (found["complete"], found["problems"]) == (True, [])
        first, second, third = sorted(
            p for p in (output / "0").rglob("*") if p.is_file() and not p.name.startswith(("zarr", ".z"))
        )[:3]
        first.unlink()
        data = bytearray(second.read_bytes())
        data[len(data) // 2] ^= 1
        second.write_bytes(data)
        third.write_bytes(third.read_bytes()[:20])
        problems = verify(output)["problems"]
        assert len(problems) == 3
        assert problems[0].endswith("is missing")
        assert all("cannot be decoded" in problem for problem in problems[1:])
        shutil.rmtree(output)
        output.mkdir()
        zarr.create_group(output, overwrite=True)
    with pytest.raises(VolumeError, match="neither"):
        verify(tmp_path / "none.zarr")
    floats = tmp_path / "float.tif"
    pixels = np.zeros((2, 9, 9), np.float32)
    pixels[1, 2, 3] = np.inf
    tifffile.imwrite(floats, pixels, photometric="minisblack")
    assert verify(floats)["problems"] == ["slice 1 has values that are not finite"]


def test_options_that_exclude_each_other_are_refused(stack, tmp_path):
    refused = (
        ({"shard": "1/2", "dask": "local:2"}, "one of them"),
        ({"ome_zarr": "0.3"}, "0.5, 0.4"),
        ({"roi": "0,0,0:1,1,1", "slices": ":1"}, "given together"),
        ({"finish": True}, "nothing to finish"),
    )
    for options, words in refused:
        with pytest.raises(UsageError, match=words):
            infer(stack, tmp_path / "a.zarr", **options)
    assert not list(tmp_path.iterdir())
    assert os.path.exists(stack)


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(stack, tmp_path, use_nearest):
    use_nearest(seconds=0.01)
    lines = []
    found = infer(stack, tmp_path / "a.zarr", **MANY_BLOCKS, dry_run=True, say=lines.append)
    assert not list(tmp_path.iterdir())
    assert (found["blocks"], found["lr_pixels"]) == (12, 48 * 64 * 64)
    assert 0 < found["bytes_expected"] < found["bytes_uncompressed"] == 48 * 192 * 192
    # 192 tiles of 10 ms
    assert 1.9 <= found["seconds"] < 6
    assert [line.split()[0] for line in lines[-4:]] == ["blocks", "bytes", "memory", "time"]
