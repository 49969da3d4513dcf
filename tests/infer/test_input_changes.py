"""An input that changes while a run reads it: no output is made of two versions of it."""

import itertools
import os
import shutil
import time
from contextlib import contextmanager

import numpy as np
import pytest
import tifffile
import zarr

from emsr_fast.cli import main
from emsr_fast.errors import PartialError, VolumeError
from emsr_fast.infer import fingerprint
from emsr_fast.infer.input_watch import InputWatch
from emsr_fast.infer.job import infer
from ome_sets import write_ome_set
from pauses import Paused
from sweeps import quick_of

OPTIONS = {"tile": 32, "halo": 0, "max_memory": "4MB", "input_voxel": "ignore", "device": "cpu"}
WORDS = ["--tile=32", "--halo=0", "--max-memory=4MB", "--input-voxel=ignore", "--device=cpu"]
PIXELS = np.random.default_rng(0).integers(0, 255, (12, 64, 64), np.uint8)


def tree_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def input_file(tmp_path):
    (tmp_path / "out").mkdir()
    tifffile.imwrite(tmp_path / "in.tif", PIXELS, photometric="minisblack")
    return tmp_path / "in.tif"


def change_one_pixel(path):
    """In place: the same size."""
    tifffile.memmap(path, mode="r+")[1, 2, 3] ^= 255


def change_and_hide_it(path):
    """As above, with the old time of modification."""
    before = path.stat()
    change_one_pixel(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def put_another(path):
    """By a rename, as most programs save."""
    tifffile.imwrite(path.with_name("new.tif"), PIXELS[::-1], photometric="minisblack")
    path.with_name("new.tif").replace(path)


def cut(path):
    os.truncate(path, path.stat().st_size - 5000)


def remove(path):
    path.unlink()


# in the middle of the run, and when all pixels are read and the output is about to be completed
STEPS = ["{output}.partial/volume/0/c/2/0/0", "open {output}.partial/finish.lock"]
CASES = list(itertools.product(STEPS, [change_one_pixel, change_and_hide_it, put_another, cut, remove]))
QUICK = [(STEPS[0], change_one_pixel), (STEPS[1], change_and_hide_it), (STEPS[1], cut)]  # each starts a process


@pytest.mark.parametrize("case", quick_of(CASES, quick=QUICK))
def test_the_command_ends_with_what_changed(input_file, tmp_path, case):
    step, change = case
    output = tmp_path / "out" / "a.ome.zarr"
    words = ["infer", str(input_file), "-o", str(output), *WORDS]
    (tmp_path / "old").mkdir()
    assert main([*words[:3], str(tmp_path / "old" / "a.ome.zarr"), *WORDS]) == 0
    shutil.copy2(input_file, tmp_path / "kept.tif")
    with Paused(words, tmp_path, step.format(output=output)) as paused:
        assert (output.with_name("a.ome.zarr.partial") / "volume" / "0" / "c" / "1").exists()
        change(input_file)
        code, said_on_stdout, errors = paused.go_on()
    assert (code, said_on_stdout) == (3, ""), errors
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: {input_file} changed during the run: ")
    assert f"throw the work away: rm -r {output}.partial" in line
    assert not output.exists()
    # with the changed input the work is not gone on with, with the old one it is
    assert main(words) == 3
    shutil.copy2(tmp_path / "kept.tif", input_file)
    assert main(words) == 0
    assert tree_of(output) == tree_of(tmp_path / "old" / "a.ome.zarr")


@pytest.fixture
def while_running(tmp_path):
    """Run infer, and call ``change`` when the first tile is done and the second slice is not; return the summary."""

    def run(source, change, output="out.zarr", **options):
        @contextmanager
        def meanwhile(lr_pixels):
            calls = []

            def done(pixels):
                calls.append(pixels)
                if len(calls) == 1:
                    change()

            yield done

        return infer(source, tmp_path / output, progress=meanwhile, **OPTIONS | options)

    return run


def folder_of_images(place):
    place.mkdir()
    for z, image in enumerate(PIXELS):
        tifffile.imwrite(place / f"{z:03}.tif", image, photometric="minisblack")
    return place, lambda: change_file(place / "009.tif")


def change_file(path):
    tifffile.imwrite(path, 255 - tifffile.imread(path), photometric="minisblack")


def zarr_folder(place):
    array = zarr.create_array(place, shape=PIXELS.shape, chunks=(1, 64, 64), dtype="u1", fill_value=3)
    array[:] = PIXELS
    return place, lambda: array.__setitem__(9, 255 - PIXELS[9])


def zarr_with_a_chunk_that_comes_late(place):
    array = zarr.create_array(place, shape=PIXELS.shape, chunks=(1, 64, 64), dtype="u1", fill_value=3)
    array[:9] = PIXELS[:9]
    return place, lambda: array.__setitem__(9, PIXELS[9])


def zarr_without_files_of_its_groups(place):
    """As zarr-python 3.0.0 to 3.0.2 wrote them."""
    array = zarr.create_array(place / "volumes" / "raw", shape=PIXELS.shape, chunks=(1, 64, 64), dtype="u1")
    array[:] = PIXELS
    for left in (place / "zarr.json", place / "volumes" / "zarr.json"):
        left.unlink(missing_ok=True)
    return place, lambda: array.__setitem__(9, 255 - PIXELS[9])


def ome_tiffs_of_a_set(place):
    """Two files of six slices, of which the first is given."""
    place.mkdir()
    write_ome_set(place, PIXELS)

    def change():
        with tifffile.TiffFile(place / "1.ome.tif") as file:
            offset = file.pages[1].dataoffsets[0]
        with (place / "1.ome.tif").open("r+b") as written:
            written.seek(offset)
            written.write(bytes(64))

    return place / "0.ome.tif", change


ZARR = [zarr_folder, zarr_with_a_chunk_that_comes_late, zarr_without_files_of_its_groups]


@pytest.mark.parametrize("make", [folder_of_images, ome_tiffs_of_a_set, *ZARR])
@pytest.mark.parametrize("sampled", [False, True])
def test_so_do_inputs_of_many_files(tmp_path, use_nearest, while_running, monkeypatch, make, sampled):
    use_nearest()
    if sampled:
        # a volume that is large, of whose slices only the first and the last are looked at
        monkeypatch.setattr(fingerprint, "_READ_WHOLE", 100)
        monkeypatch.setattr(fingerprint, "_SAMPLES", 2)
    source, change = make(tmp_path / "in.zarr" if make is zarr_without_files_of_its_groups else tmp_path / "in")
    with pytest.raises(VolumeError, match=r" changed during the run: .*(modified at|had \d+ bytes|there now)"):
        while_running(source, change)
    assert not (tmp_path / "out.zarr").exists()


def test_a_damaged_tiff_is_watched_without_a_word(input_file, caplog):
    """What is wrong with it is said once, by whoever opens it."""
    data = bytearray(input_file.read_bytes())
    first_tag = int.from_bytes(data[4:8], "little") + 2
    data[first_tag + 2 : first_tag + 12] = bytes([2, 0, 255, 255, 255, 0, 255, 255, 255, 0])  # text beyond the end
    input_file.write_bytes(data)
    with tifffile.TiffFile(input_file):
        assert caplog.records
    caplog.clear()
    InputWatch(input_file)
    assert not caplog.records


def test_what_was_written_since_the_last_look_is_removed(tmp_path, use_nearest, while_running, monkeypatch):
    use_nearest()
    source, change = folder_of_images(tmp_path / "in")
    # as if a look took so long that there is none until the end
    monkeypatch.setattr(InputWatch, "is_due", lambda self: False)
    with pytest.raises(VolumeError, match="changed during the run"):
        while_running(source, change)
    assert not (tmp_path / "out.zarr.partial").exists()  # nothing of it was sure


def test_a_file_that_is_touched_or_copied_with_the_same_pixels_has_not_changed(
    input_file, tmp_path, use_nearest, while_running
):
    use_nearest()

    def change():
        shutil.copy(input_file, tmp_path / "copy.tif")
        (tmp_path / "copy.tif").replace(input_file)
        os.utime(input_file)

    assert while_running(input_file, change)["complete"]


def test_of_a_large_volume_a_new_time_is_a_change(input_file, use_nearest, while_running, monkeypatch):
    use_nearest()
    monkeypatch.setattr(fingerprint, "_READ_WHOLE", 100)
    with pytest.raises(VolumeError, match=r"in\.tif was modified at .*, is modified at "):
        while_running(input_file, lambda: os.utime(input_file))


def test_so_is_another_file_with_the_same_size_and_time(input_file, tmp_path, use_nearest, while_running, monkeypatch):
    use_nearest()
    monkeypatch.setattr(fingerprint, "_READ_WHOLE", 100)
    monkeypatch.setattr(fingerprint, "_SAMPLES", 2)
    shutil.copy2(input_file, tmp_path / "copy.tif")
    change_and_hide_it(tmp_path / "copy.tif")
    with pytest.raises(VolumeError, match=r"in\.tif was replaced by another file"):
        while_running(input_file, lambda: (tmp_path / "copy.tif").replace(input_file))


def test_new_permissions_and_names_of_a_large_volume_are_no_change(
    input_file, tmp_path, use_nearest, while_running, monkeypatch
):
    use_nearest()
    monkeypatch.setattr(fingerprint, "_READ_WHOLE", 100)

    def change():
        input_file.chmod(0o600)
        os.link(input_file, tmp_path / "backup.tif")

    assert while_running(input_file, change)["complete"]


def test_a_slice_that_is_mended_during_the_run_is_no_change(tmp_path, use_nearest, while_running):
    use_nearest()
    source, _ = folder_of_images(tmp_path / "in")
    good = (source / "009.tif").read_bytes()
    (source / "009.tif").write_bytes(good[:200])
    with pytest.raises(PartialError, match="slice 9"):
        while_running(source, lambda: (source / "009.tif").write_bytes(good))
    assert infer(source, tmp_path / "out.zarr", **OPTIONS)["complete"]


def test_a_file_that_somebody_puts_beside_images_is_no_change(tmp_path, use_nearest, while_running, monkeypatch):
    use_nearest()
    monkeypatch.setattr(fingerprint, "_READ_WHOLE", 100)
    source, _ = folder_of_images(tmp_path / "in")
    assert while_running(source, lambda: (source / "notes.txt").write_text("x"))["complete"]


def test_what_a_stop_keeps_is_of_one_input(input_file, tmp_path, use_nearest, while_running):
    use_nearest()

    def change_and_stop():
        change_one_pixel(input_file)
        raise KeyboardInterrupt

    with pytest.raises(VolumeError, match="changed during the run"):
        while_running(input_file, change_and_stop)
    assert not (tmp_path / "out.zarr.partial").exists()


def test_a_dask_worker_notices_it(input_file, tmp_path, while_running):
    pytest.importorskip("distributed")
    with pytest.raises(VolumeError, match="changed during the run"):
        while_running(input_file, lambda: change_one_pixel(input_file), dask="local:1")


def test_looks_take_a_hundredth_of_the_time(input_file, monkeypatch):
    watch, now = InputWatch(input_file), [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr("emsr_fast.infer.input_watch._stamp", lambda path: now.__setitem__(0, now[0] + 2.0))
    assert watch.is_due()
    watch._then = dict.fromkeys(watch._then)
    assert watch.change(None, None) is None
    assert not watch.is_due()
    now[0] += 199
    assert not watch.is_due()
    now[0] += 1
    assert watch.is_due()
