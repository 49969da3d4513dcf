"""Standard streams that are closed, full, left by their reader, or lack a character: the work is done all the same."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tifffile

COMMAND = [sys.executable, "-m", "emsr_fast"]
PIXELS = np.random.default_rng(0).integers(20, 235, (2, 24, 28), dtype="u1")


@pytest.fixture
def image(tmp_path):
    tifffile.imwrite(tmp_path / "in.tif", PIXELS, photometric="minisblack")
    return tmp_path / "in.tif"


@pytest.fixture
def left():
    """The end to write to of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


def shell(line, image, **variables):
    """Run a line of bash in which ``$emsr`` is the command, beside ``image``."""
    script = f'emsr() {{ "{sys.executable}" -m emsr_fast "$@"; }}; {line}'
    return subprocess.run(
        ["bash", "-c", script], cwd=image.parent, capture_output=True, timeout=120, env={**os.environ, **variables}
    )


# some 3 s each: a process of its own that loads torch
@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", ">&-"])
def test_closed_streams_do_not_change_the_work_or_the_exit_code(image, closed):
    result = shell(f"emsr infer in.tif -o out.tif --input-voxel ignore {closed}", image)
    assert result.returncode == 0
    assert result.stdout == b""
    # whose numbers the output's file must not have had
    assert tifffile.imread(image.with_name("out.tif")).shape == (2, 72, 84)


def test_the_work_is_done_when_the_reader_of_what_is_said_has_left(image, left):
    command = [*COMMAND, "infer", str(image), "-o", "out.tif", "--input-voxel", "ignore"]
    result = subprocess.run(command, cwd=image.parent, stdout=subprocess.PIPE, stderr=left, timeout=120)
    assert result.returncode == 0
    assert result.stdout.decode().strip() == str(image.with_name("out.tif"))
    assert tifffile.imread(image.with_name("out.tif")).shape == (2, 72, 84)


@pytest.mark.parametrize("redirected", ["2>&-", "2>/dev/full", "<&-"])
def test_stdout_is_the_same_whatever_becomes_of_stderr(image, redirected):
    result = shell(f"emsr inspect in.tif --json {redirected}", image)
    assert result.returncode == 0
    assert json.loads(result.stdout)["shape"] == [2, 24, 28]


@pytest.mark.parametrize(("name", "code"), [("in.tif", 0), ("absent.tif", 3)])
def test_the_exit_code_is_the_works_when_the_reader_of_stdout_has_left(image, left, name, code):
    command = [*COMMAND, "inspect", name, "--json"]
    result = subprocess.run(command, cwd=image.parent, stdout=left, stderr=subprocess.PIPE, timeout=60)
    assert result.returncode == code
    assert result.stderr.count(b"\n") == (1 if code else 0)


@pytest.mark.parametrize("options", ["", "--json"])
def test_a_result_that_a_full_disk_does_not_take_is_an_error_of_one_line(image, options):
    result = shell(f"emsr inspect in.tif {options} >/dev/full", image)
    assert result.returncode == 3
    assert result.stderr.decode().splitlines() == [
        "error: standard output: No space left on device; check the path, its permissions and the disk"
    ]


def test_names_that_the_encoding_of_stdout_lacks_are_written_with_escapes(image):
    (image.parent / "dänisch").mkdir()
    image.rename(image.parent / "dänisch" / "in.tif")
    result = shell("emsr inspect dänisch/in.tif", image, PYTHONIOENCODING="ascii")
    assert (result.returncode, result.stderr) == (0, b"")
    assert rb"d\xe4nisch/in.tif" in result.stdout


def test_names_that_are_no_text_are_written_as_they_are(image):
    # bytes, and not escapes: $(...) of a shell gets a name that it can open
    name = os.fsencode(image.parent) + b"/\xff.tif"
    os.rename(image, name)
    result = subprocess.run(
        [*COMMAND, "inspect", name], capture_output=True, timeout=60, env={**os.environ, "PYTHONUTF8": "1"}
    )
    assert (result.returncode, result.stderr) == (0, b"")
    assert b"/\xff.tif" in result.stdout
