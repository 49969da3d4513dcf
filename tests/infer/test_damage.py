"""Files of an output that were cut, changed, exchanged or removed: noticed before it has its name, and after."""

import json
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager

import pytest
import zarr

from emsr_fast.cli import main
from emsr_fast.errors import PartialError
from emsr_fast.infer.job import infer
from emsr_fast.infer.verify import verify
from emsr_fast.infer.written import WrittenFiles
from half_done import DAMAGES, copy_another, cut, empty, flip, options_of, remove, shards_of, tree_of
from pauses import Paused


@pytest.mark.parametrize("more", [[], ["--shard=2/2"]], ids=["all", "the other share"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_shard_is_done_again_and_the_end_has_the_same_bytes(half, capsys, damage, more):
    folder, words = half
    partial = folder / "out.zarr.partial"
    first, second = shards_of(partial / "volume")[:2]
    damage(first, second)
    if more and damage is remove:
        # its share is not ours: whoever runs it again completes the output
        assert main([*words, *more]) == 0
        assert not (folder / "out.zarr").exists()
        more = []
    assert main([*words, *more]) == 0
    assert tree_of(folder / "out.zarr") == tree_of(folder / "whole" / "out.zarr")
    assert not partial.exists()
    if damage is not remove:
        said = capsys.readouterr().err
        assert "note    1 block not as written (missing, cut, changed, or a copy of another), to be done again" in said
        assert str(first.relative_to(partial)) in said


ABOVE = [("0.4", "1"), ("trust", "trust/error/0"), ("trust", "trust/error/1"), ("trust", "trust/residual/0")]
ABOVE = [("0.5", "1"), *(pytest.param(*case, marks=pytest.mark.exhaustive) for case in ABOVE)]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(("begun", "level"), ABOVE, indirect=["begun"])
def test_so_is_one_of_a_level_above_or_of_a_map(half, level, damage):
    folder, words = half
    volume = folder / "out.zarr.partial" / "volume"
    damage(shards_of(volume, level)[0], shards_of(volume)[0])
    assert main(words) == 0
    assert tree_of(folder / "out.zarr") == tree_of(folder / "whole" / "out.zarr")


@pytest.mark.parametrize("damage", DAMAGES)
def test_verify_notices_it_in_an_output(begun, tmp_path, damage):
    whole, _ = begun
    shutil.copytree(whole / "whole" / "out.zarr", tmp_path / "out.zarr")
    assert verify(tmp_path / "out.zarr")["problems"] == []
    first, second = shards_of(tmp_path / "out.zarr")[:2]
    damage(first, second)
    (problem,) = verify(tmp_path / "out.zarr")["problems"]
    words = {empty: "is empty", remove: "is missing", copy_another: "0: every file is whole, but they are not those"}
    assert words.get(damage, "cannot be decoded") in problem
    assert main(["verify", str(tmp_path / "out.zarr")]) == 4


def test_verify_notices_two_shards_that_were_exchanged_in_any_level_or_map(begun, tmp_path):
    whole, mode = begun
    shutil.copytree(whole / "whole" / "out.zarr", tmp_path / "out.zarr")
    for level in ("0", "1", *(("trust/error/0", "trust/residual/0") if "--trust" in mode else ())):
        first, *_, last = shards_of(tmp_path / "out.zarr", level)
        before = first.read_bytes(), last.read_bytes()
        first.write_bytes(before[1])
        last.write_bytes(before[0])
        (problem,) = verify(tmp_path / "out.zarr")["problems"]
        assert problem.startswith(f"{level}: every file is whole, but")
        first.write_bytes(before[0])
        last.write_bytes(before[1])
    assert verify(tmp_path / "out.zarr")["complete"]


def edited(change):
    """A damage: ``change`` of the attributes of an output, its multiscale image, and what infer noted there."""

    def damage(output):
        file = next(file for file in (output / "zarr.json", output / ".zattrs") if file.exists())
        content = json.loads(file.read_text())
        attributes = content["attributes"] if file.name == "zarr.json" else content
        change(attributes, attributes.get("ome", attributes)["multiscales"][0], attributes["emsr_fast"])
        file.write_text(json.dumps(content))

    return damage


def without_a_level(output):
    """Also its metadata do not name it."""
    shutil.rmtree(output / "1")
    edited(lambda attributes, image, own: image["datasets"].pop())(output)


def without_metadata(output):
    for name in ("zarr.json", ".zgroup", ".zattrs"):
        (output / name).unlink(missing_ok=True)


LOST = {
    "a level": (without_a_level, "1 is missing, or no metadata name it"),
    "the metadata": (without_metadata, "metadata cannot be read: "),
    "every level": (edited(lambda attributes, image, own: image.update(datasets=[])), "they name no level"),
    "what infer noted": (edited(lambda attributes, image, own: attributes.update(emsr_fast=[])), "infer noted in them"),
    "failed slices": (edited(lambda attributes, image, own: own.update(failed_slices=[1])), "infer noted in them"),
    "checksums": (edited(lambda attributes, image, own: own.update(checksums=[1])), "infer noted in them"),
}


@pytest.mark.parametrize("what", LOST)
def test_verify_notices_an_output_that_lost_a_part(begun, tmp_path, capsys, what):
    shutil.copytree(begun[0] / "whole" / "out.zarr", tmp_path / "out.zarr")
    damage, said = LOST[what]
    damage(tmp_path / "out.zarr")
    assert main(["verify", str(tmp_path / "out.zarr")]) == 4
    (problem,) = verify(tmp_path / "out.zarr")["problems"]
    assert said in problem


@pytest.mark.parametrize("begun", [pytest.param("trust", marks=pytest.mark.exhaustive)], indirect=True)
@pytest.mark.parametrize(("lost", "missing"), [("trust", 5), ("trust/error", 2), ("trust/error/zarr.json", 1)])
def test_verify_notices_maps_of_trust_that_were_removed(begun, tmp_path, lost, missing):
    shutil.copytree(begun[0] / "whole" / "out.zarr", tmp_path / "out.zarr")
    place = tmp_path / "out.zarr" / lost
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    problems = verify(tmp_path / "out.zarr")["problems"]
    assert len(problems) == missing
    assert all(problem.startswith(lost.removesuffix("zarr.json")) for problem in problems)


@pytest.mark.parametrize("damage", DAMAGES)
def test_verify_names_the_shard_of_an_unfinished_output(half, damage):
    folder, _ = half
    before = set(verify(folder / "out.zarr")["problems"])
    first, second = shards_of(folder / "out.zarr.partial" / "volume")[:2]
    damage(first, second)
    (problem,) = set(verify(folder / "out.zarr")["problems"]) - before
    assert problem.startswith(str(first.relative_to(folder / "out.zarr.partial" / "volume")))


def test_finish_removes_a_damaged_block_and_says_what_to_do(half, capsys):
    folder, words = half
    # the other share too, but nobody completes the output
    with pytest.raises(KeyboardInterrupt):
        infer(words[1], words[3], **options_of(words), shard="2/2", progress=interrupted_at_its_end)
    first, second = shards_of(folder / "out.zarr.partial" / "volume")[:2]
    copy_another(first, second)
    assert main([*words, "--finish"]) == 4
    assert "had 1 damaged block; do them with: emsr-fast infer" in capsys.readouterr().err
    assert not first.exists()
    assert main(words) == 0
    assert tree_of(folder / "out.zarr") == tree_of(folder / "whole" / "out.zarr")


@contextmanager
def interrupted_at_its_end(lr_pixels):
    yield lambda done: None
    raise KeyboardInterrupt


def test_a_record_that_is_cut_costs_its_block_only(half):
    folder, words = half
    # the other was written when the folder was made, and is on the disk since then
    records = max((folder / "out.zarr.partial" / "written").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    records.write_bytes(records.read_bytes()[:-7])
    done = infer(words[1], words[3], **options_of(words))
    assert done["blocks_done_before"] > 0
    assert tree_of(folder / "out.zarr") == tree_of(folder / "whole" / "out.zarr")


# real processes


@pytest.fixture
def reference(slices, tmp_path):
    """The output as it should be."""
    _, words = slices
    (tmp_path / "reference").mkdir()
    infer(words[1], tmp_path / "reference" / "a.ome.zarr", **options_of(words))
    return tree_of(tmp_path / "reference" / "a.ome.zarr")


@pytest.mark.parametrize("damage", [empty, cut, flip, copy_another])
def test_a_process_that_is_killed_and_damage_before_the_next(slices, reference, tmp_path, damage):
    output, words = slices
    volume = output.with_name("a.ome.zarr.partial") / "volume"
    with Paused(words, tmp_path, "volume/0/c/2/0/0") as paused:
        paused.process.kill()
        paused.process.wait()
    first, second = shards_of(volume)[:2]
    damage(first, second)
    again = subprocess.run([sys.executable, "-m", "emsr_fast", *words], capture_output=True, text=True, timeout=120)
    assert (again.returncode, "1 block not as written" in again.stderr) == (0, True), again.stderr
    assert tree_of(output) == reference
    assert [entry.name for entry in output.parent.iterdir()] == [output.name]


@pytest.mark.parametrize("damage", [empty, cut])
def test_damage_to_what_the_process_itself_wrote_before_it_takes_the_name(slices, reference, tmp_path, damage):
    output, words = slices
    volume = output.with_name("a.ome.zarr.partial") / "volume"
    with Paused(words, tmp_path, "volume/0/c/2/0/0") as paused:
        damage(shards_of(volume)[0], None)
        code, _, errors = paused.go_on()
    assert (code, "1 block not as written" in errors) == (0, True), errors
    assert tree_of(output) == reference


REMOVED = {
    "the level": ("volume/0", "volume/0/zarr.json is gone; nothing can go on from it"),
    "a block": ("volume/0/c/0", r"volume has lost 1 block that this run had done, such as \(0, 0, 0\): something else"),
    "everything": ("", "No such file"),
}


@pytest.mark.parametrize("what", REMOVED)
def test_a_run_whose_work_is_removed_does_not_end_as_if_all_were_well(slices, reference, tmp_path, what):
    output, words = slices
    partial, (part, said) = output.with_name("a.ome.zarr.partial"), REMOVED[what]
    with Paused(words, tmp_path, "volume/0/c/2/0/0") as paused:
        shutil.rmtree(partial / part)
        code, said_on_stdout, errors = paused.go_on()
    assert code == 3, errors
    assert said_on_stdout == ""
    assert len([line for line in errors.splitlines() if line.startswith("error: ")]) == 1
    assert not output.exists()
    assert re.search(said, errors), errors
    if what == "the level":
        shutil.rmtree(partial)
    assert main(words) == 0
    assert tree_of(output) == reference
    assert [entry.name for entry in output.parent.iterdir()] == [output.name]


# the records


def test_a_process_reads_only_what_others_wrote(tmp_path, monkeypatch):
    (tmp_path / "written").mkdir()
    (tmp_path / "unfinished").mkdir()
    ours, theirs = WrittenFiles(tmp_path), WrittenFiles(tmp_path)
    a, b = tmp_path / "volume" / "a", tmp_path / "volume" / "b"
    ours.write(a, b"one")
    theirs.write(b, b"two")
    ours.look_again()
    hashes = ours.hash_of(a), ours.hash_of(b)
    assert None not in hashes
    monkeypatch.setattr("emsr_fast.infer.written._pieces", lambda path: pytest.fail(f"{path} was read"))
    assert (ours.hash_of(a), ours.hash_of(b)) == hashes
    a.write_bytes(b"longer")
    assert ours.hash_of(a) is None


def test_what_was_written_twice_is_whole_either_way(tmp_path):
    (tmp_path / "written").mkdir()
    (tmp_path / "unfinished").mkdir()
    path = tmp_path / "volume" / "a"
    files = WrittenFiles(tmp_path)
    for content in (b"one", b"two"):
        files.write(path, content)
    files.look_again()
    hashes = []
    for content in (b"two", b"one", b"six"):
        path.write_bytes(content)
        hashes.append(files.hash_of(path, read=True))
    assert hashes[2] is None
    assert None not in hashes[:2]
    assert hashes[0] != hashes[1]


def test_an_empty_shard_of_an_output_of_another_program_is_no_image(tmp_path):
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=(4, 32, 32), shards=(2, 32, 32), chunks=(1, 16, 16), dtype="u1"
    )
    array[:] = 7
    (tmp_path / "a.zarr" / "c" / "0" / "0" / "0").write_bytes(b"")
    with pytest.raises(PartialError, match="slice 0"):
        infer(tmp_path / "a.zarr", tmp_path / "out.zarr", input_voxel="ignore", device="cpu", intensity_range="0:255")
