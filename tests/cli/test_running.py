"""A command at work: what it shows meanwhile, and how it stops when it is told to."""

import signal
import subprocess
import sys
import time
from io import StringIO

import pytest

from emsr_fast.cli import exits, progress
from terminals import shown_on_a_terminal

COMMAND = [sys.executable, "-m", "emsr_fast"]


def test_a_terminal_gets_a_bar_with_rate(examples, tmp_path):
    source, output = examples / "flyem_fibsem_10nm_48x192x192.tif", tmp_path / "a.tif"
    text = shown_on_a_terminal(
        [*COMMAND, "infer", str(source), "-o", str(output), "--slices", ":1", "--input-voxel", "ignore"],
        stdout=subprocess.DEVNULL,
    )
    assert b"LR Mpx/s" in text
    assert b"100%" in text


def test_elsewhere_progress_is_plain_lines_also_while_a_tile_takes_long():
    stream = StringIO()
    with progress.lines(2_000_000, stream, first_s=0.05, every_s=0.1) as done:
        time.sleep(0.08)
        done(1_000_000)
        time.sleep(0.4)
    first, *others = stream.getvalue().splitlines()
    assert "0.0 %" in first
    assert "first tile not finished" in first
    assert len(others) >= 2
    assert all("50.0 % after 0:00:0" in line and "LR Mpx/s" in line and "left" in line for line in others)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("name", ["a.tif", "a.ome.zarr"])
@pytest.mark.parametrize("blocks", [0, 2])
def test_a_signal_leaves_what_is_done_and_says_how_to_go_on(examples, tmp_path, number, code, name, blocks):
    source = examples / "flyem_fibsem_10nm_48x192x192.tif"
    options = [
        "--tile",
        "64",
        "--halo",
        "0",
        "--max-memory",
        "11MB",
        "--roi",
        "0,0,0:48,128,128",
        "--input-voxel",
        "ignore",
    ]
    process = subprocess.Popen(
        [*COMMAND, "infer", str(source), "-o", str(tmp_path / name), "--input-voxel", "ignore", *options],
        stderr=subprocess.PIPE,
        text=True,
    )
    partial = tmp_path / f"{name}.partial"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        shards = [path for path in (partial / "volume" / "0" / "c").rglob("*") if path.is_file()]
        if partial.exists() and len(shards) >= blocks:
            break
        time.sleep(0.005)
    time.sleep(0.1)
    assert process.poll() is None
    process.send_signal(number)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert errors.splitlines()[-1].startswith("error: stopped by SIG")
    assert "Traceback" not in errors
    if blocks:
        assert f"go on with: emsr-fast infer {source}" in errors
    done = [path for path in (partial / "volume" / "0" / "c").rglob("*") if path.is_file()]
    assert len(done) >= blocks
    # without a tile there is nothing to go on with
    if done or list(partial.glob("stopped/*")):
        assert [entry.name for entry in tmp_path.iterdir()] == [partial.name]
        assert errors.endswith(f"; what is done is kept in {partial}; repeat the command to go on\n")
    else:
        assert not list(tmp_path.iterdir())
        assert errors.endswith("; no unfinished work is kept; repeat the command to begin again\n")


def test_two_signals_at_once_are_one_stop_and_do_not_cut_the_clean_up_short(capsys):
    steps = []

    def command():
        try:
            signal.raise_signal(signal.SIGINT)
            steps.append("not reached")
        finally:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            steps.append("cleaned up")

    assert exits.run(command, as_json=False) == 130
    assert steps == ["cleaned up"]
    assert capsys.readouterr().err == (
        "error: stopped by SIGINT; no unfinished work is kept; repeat the command to begin again\n"
    )
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_a_finalizer_swallows_stops_the_command_all_the_same(capsys, number):
    class SignalArrivesWhileItEnds:
        def __del__(self):
            signal.raise_signal(number)

    def command():
        deadline = time.monotonic() + 10
        waits_for_its_end = SignalArrivesWhileItEnds()
        del waits_for_its_end
        while time.monotonic() < deadline:
            pass

    hook = sys.unraisablehook
    assert exits.run(command, as_json=False) == 128 + number
    assert sys.unraisablehook is hook
    name = signal.Signals(number).name
    assert capsys.readouterr().err == (
        f"error: stopped by {name}; no unfinished work is kept; repeat the command to begin again\n"
    )


def test_another_error_in_a_finalizer_is_still_shown(capsys):
    class Fails:
        def __del__(self):
            raise ValueError("its own")

    shown = []
    before, sys.unraisablehook = sys.unraisablehook, shown.append
    try:
        assert exits.run(lambda: Fails() and None, as_json=False) == 0
    finally:
        sys.unraisablehook = before
    assert [str(one.exc_value) for one in shown] == ["its own"]
