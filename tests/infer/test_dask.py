"""Workers of dask.distributed: the same bytes as alone, and a killed worker costs the block it was at."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import tifffile
from distributed import Client, LocalCluster

from emsr_fast.errors import BackendError, UsageError, VolumeError
from emsr_fast.infer import local_workers
from emsr_fast.infer.distributed import batches_of, results_of_batches
from emsr_fast.infer.job import infer
from emsr_fast.infer.verify import verify
from many_blocks import AS_OPTIONS, MANY_BLOCKS

# 12 blocks of 4 slices
OPTIONS = {
    "tile": 32,
    "halo": 0,
    "max_memory": "4MB",
    "roi": "0,0,0:48,64,64",
    "device": "cpu",
    "input_voxel": "ignore",
    # so narrow that pixels are beyond the bounds of what the network is given
    "intensity_range": "100:140",
}


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, memory_limit=0, dashboard_address=":0"
    ) as running:
        yield running


def files_of(path):
    return {str(f.relative_to(path)): f.read_bytes() for f in path.rglob("*") if f.is_file()}


def test_workers_write_the_same_bytes_as_one_process(stack, tmp_path, cluster, monkeypatch):
    (tmp_path / "alone").mkdir()
    (tmp_path / "dask").mkdir()
    infer(stack, tmp_path / "alone" / "a.zarr", **OPTIONS)
    done = infer(stack, tmp_path / "dask" / "a.zarr", **OPTIONS, dask=cluster.scheduler_address)
    assert (done["blocks"], done["complete"]) == (12, True)
    assert done["network_fraction"] > 0
    pixels = tifffile.imread(stack)[:, :64, :64].astype(int)
    assert done["bounded_pixels"] == np.count_nonzero((pixels < 60) | (pixels > 180)) > 0
    assert files_of(tmp_path / "alone" / "a.zarr") == files_of(tmp_path / "dask" / "a.zarr")


def test_a_worker_killed_in_mid_block_costs_that_block_only(stack, tmp_path, cluster):
    output = tmp_path / "a.zarr"
    script = (
        "import sys, json; from emsr_fast.infer.job import infer\n"
        "print(json.dumps(infer(sys.argv[1], sys.argv[2], dask=sys.argv[3], **json.loads(sys.argv[4]))))"
    )
    options = json.dumps(OPTIONS | {"roi": "0,0,0:48,128,128"})
    arguments = [sys.executable, "-c", script, str(stack), str(output), cluster.scheduler_address, options]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    shards = tmp_path / "a.zarr.partial" / "volume" / "0" / "c"
    while len([p for p in shards.rglob("*") if p.is_file()]) < 4:
        time.sleep(0.01)
        assert process.poll() is None
    written = {p: p.stat().st_mtime_ns for p in shards.rglob("*") if p.is_file()}
    victim = next(iter(cluster.workers.values())).process.pid
    os.kill(victim, signal.SIGKILL)
    time.sleep(0.2)
    # what was there stays as it is: nobody does it again
    still = {p: p.stat().st_mtime_ns for p in written if p.exists()}
    assert all(written[p] == at for p, at in still.items())
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    done = json.loads(text)
    assert done["complete"]
    # blocks that the killed worker had finished are counted by nobody; the rest is
    assert done["blocks"] <= 48
    assert verify(output)["complete"]
    after = {p: (output / "0" / "c" / p.relative_to(shards)).stat().st_mtime_ns for p in written}
    assert after == written


def test_an_error_of_the_input_is_the_same_line_as_alone(stack, tmp_path, cluster, monkeypatch):
    tifffile.imwrite(tmp_path / "in.tif", tifffile.imread(stack)[:8, :64, :64], photometric="minisblack")
    from emsr_fast.infer import distributed

    run = distributed.run_on_dask

    def spoil(where, station, *rest):
        (tmp_path / "in.tif").write_bytes(b"II*\0")
        return run(where, station, *rest)

    monkeypatch.setattr(distributed, "run_on_dask", spoil)
    options = OPTIONS | {"roi": "0,0,0:8,64,64", "dask": cluster.scheduler_address}
    with pytest.raises(VolumeError, match=r"in\.tif"):
        infer(tmp_path / "in.tif", tmp_path / "a.zarr", **options)


def _die(numbers):
    os.kill(os.getpid(), signal.SIGKILL)


def test_blocks_that_kill_every_worker_end_the_run_with_one_line():
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=True, memory_limit=0, dashboard_address=":0"
        ) as local,
        Client(local) as client,
    ):
        client.run_on_scheduler(lambda dask_scheduler: setattr(dask_scheduler, "allowed_failures", 0))
        with pytest.raises(BackendError, match="several workers died on blocks 3 to 5"):
            list(results_of_batches(client, _die, iter([[3, 4, 5]]), (), 1))


def test_a_million_blocks_are_some_ten_thousand_tasks():
    sizes = [len(batch) for batch in batches_of(list(range(1_000_000)), 100)]
    assert (sum(sizes), len(sizes)) == (1_000_000, 15625)
    # few blocks: as many tasks, so that no worker is idle
    assert [len(batch) for batch in batches_of(list(range(10)), 4)] == [1] * 10


@pytest.mark.parametrize("where", ["local:0", "local:x", "nowhere.json", "tcp://127.0.0.1:1"])
def test_what_is_no_cluster_is_refused(stack, tmp_path, where, monkeypatch):
    import dask

    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}), pytest.raises(UsageError, match="local:N"):
        infer(stack, tmp_path / "a.zarr", **OPTIONS, dask=where)
    assert not list(tmp_path.iterdir())


def quiet(errors):
    """Whether ``errors`` holds nothing but lines of the command itself."""
    return not any(word in errors for word in ("Traceback", "WARNING", "ERROR", "Warning", "nanny", "distributed"))


@pytest.mark.exhaustive
def test_local_workers_are_quiet_and_cost_no_more_than_two_more_starts(stack, tmp_path):
    command = [sys.executable, "-m", "emsr_fast", "infer", str(stack), *AS_OPTIONS, "-o"]
    ratios = []
    for attempt in range(3):
        (tmp_path / f"{attempt}").mkdir()
        (tmp_path / f"dask{attempt}").mkdir()
        shares, workers = tmp_path / f"{attempt}" / "a.zarr", tmp_path / f"dask{attempt}" / "a.zarr"
        start = time.monotonic()
        both = [subprocess.Popen([*command, shares, "--shard", f"{i}/2"], stderr=subprocess.DEVNULL) for i in (1, 2)]
        assert [process.wait(120) for process in both] == [0, 0]
        half = time.monotonic()
        done = subprocess.run([*command, workers, "--dask", "local:2"], capture_output=True, text=True, timeout=120)
        ratios.append((time.monotonic() - half) / (half - start))
        assert done.returncode == 0, done.stderr
        assert quiet(done.stderr), done.stderr
        assert "dask    2 workers" in done.stderr
        assert files_of(workers) == files_of(shares)
        # the command starts, then dask, then the workers: each takes no longer than a share, mostly its start
        if ratios[-1] < 3:
            return  # other programs may run beside one of the attempts
    pytest.fail(f"beside two shares, --dask local:2 takes {ratios} times as long")


@pytest.mark.exhaustive
def test_ctrl_c_reaches_local_workers_through_the_command_and_they_save_what_is_done(stack, tmp_path):
    (tmp_path / "b").mkdir()
    output, undisturbed = tmp_path / "a.zarr", tmp_path / "b" / "a.zarr"
    # one block for each worker, which takes long enough
    options = {"tile": 32, "halo": 32, "roi": "0,0,0:32,96,128", "input_voxel": "ignore", "device": "cpu"}
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    process = subprocess.Popen(
        [sys.executable, "-m", "emsr_fast", "infer", str(stack), "-o", str(output), *words, "--dask=local:2"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for line in process.stderr:
        if line.startswith("dask "):
            break
    workers = psutil.Process(process.pid).children(recursive=True)
    assert len(workers) == 2
    # a worker computes when it has loaded the network
    deadline = time.monotonic() + 60
    while any(worker.cpu_times().user < 3 for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert quiet(errors), errors
    assert errors.endswith(f"what is done is kept in {output}.partial; repeat the command to go on\n")
    assert not any(worker.is_running() for worker in workers)
    kept = sorted((tmp_path / "a.zarr.partial" / "stopped").iterdir())
    assert kept
    infer(stack, undisturbed, **options)
    done = infer(stack, output, **options)
    assert done["lr_pixels"] < 32 * 96 * 128
    assert files_of(output) == files_of(undisturbed)


def test_a_killed_command_takes_its_local_workers_along(tmp_path, stack):
    words = [*AS_OPTIONS, "-o", str(tmp_path / "a.zarr"), "--dask", "local:2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "emsr_fast", "infer", str(stack), *words], stderr=subprocess.PIPE, text=True
    )
    for line in process.stderr:
        if line.startswith("dask "):
            break
    workers = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate(timeout=60)
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert (len(workers), alive) == (2, [])
    (tmp_path / "b").mkdir()
    infer(stack, tmp_path / "b" / "a.zarr", **MANY_BLOCKS, device="cpu")
    infer(stack, tmp_path / "a.zarr", **MANY_BLOCKS, device="cpu")
    assert files_of(tmp_path / "a.zarr") == files_of(tmp_path / "b" / "a.zarr")


def test_a_killed_local_worker_is_started_again():
    with local_workers.local_workers(2) as client:
        before = client.run(os.getpid)
        os.kill(next(iter(before.values())), signal.SIGKILL)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            now = client.run(os.getpid, on_error="ignore")
            if len(now) == 2 and now != before:
                break
            time.sleep(0.1)
        assert len(set(now.values()) & set(before.values())) == 1
        assert client.submit(sum, [1, 2]).result(60) == 3


def test_a_local_worker_that_cannot_start_is_an_error_at_once(monkeypatch):
    monkeypatch.setattr(local_workers, "_PROGRAM", "raise SystemExit(7)")
    with (
        pytest.raises(BackendError, match="a worker ended with exit code 7 before it could be used"),
        local_workers.local_workers(2),
    ):
        pass


def test_a_script_without_a_main_guard_runs_once(tmp_path, stack):
    (tmp_path / "script.py").write_text(
        "import sys\nfrom emsr_fast.infer.job import infer\nprint('once')\n"
        "infer(sys.argv[1], sys.argv[2], dask='local:2', slices=':1', input_voxel='ignore', device='cpu')\n"
    )
    arguments = [sys.executable, str(tmp_path / "script.py"), str(stack), str(tmp_path / "a.zarr")]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "once\n", "")
