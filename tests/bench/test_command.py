"""What `emsr-fast bench` says, the marks for wrong results, and the page with the published figures."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from emsr_fast import Emsr, EmsrConfig
from emsr_fast.bench import job, machine, peers, roofline, rounds, runtimes
from emsr_fast.cli import main
from emsr_fast.errors import UsageError

BENCH = Path(__file__).parents[2] / "bench" / "measure"


def script(name, monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    spec = importlib.util.spec_from_file_location(name, BENCH / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_papers_network_has_its_published_work():
    work = roofline.work_of(EmsrConfig(), winograd=False)
    assert work.published_flop == 2 * 3_134_544
    assert work.kernel_flop == work.published_flop


def test_our_kernels_have_less_to_do():
    work = roofline.work_of(EmsrConfig(), winograd=True)
    # 24 convolutions of 64 channels a block with 64 products for 36 pixels, and the upsampler's 25 taps
    saved = 3 * 24 * 64 * 64 * (9 - 64 / 36) + 9 * 64 * 9 * 64 + 9 * 64 * 9 - 25 * 64 * 9
    assert work.published_flop - work.kernel_flop == pytest.approx(2 * saved)
    assert roofline.work_of(EmsrConfig(scale=4), winograd=True).kernel_flop > work.kernel_flop


def test_measures_are_of_this_machine():
    cpu = torch.device("cpu")
    assert 1e8 < roofline.peak_flops(cpu, side=256, repeats=2) < 1e14
    assert 1e8 < roofline.bandwidth(cpu, megabytes=32, repeats=2) < 1e13
    facts = machine.describe()
    assert facts["threads"] == torch.get_num_threads()
    machine.forget_peak_memory()
    before = machine.peak_memory_mb()
    torch.ones(50_000_000)  # 200 MB, gone at once
    assert machine.peak_memory_mb() > before + 150


def test_every_candidate_runs_once_a_round_in_rotated_order():
    order = []
    runs = {name: lambda y, name=name: order.append(name) for name in "abc"}
    seconds = rounds.measure(runs, torch.zeros(1), 4)
    assert "".join(order) == "abcbcacababc"
    assert [len(times) for times in seconds.values()] == [4, 4, 4]


def test_a_wrong_result_is_marked_and_not_dropped():
    y = torch.rand(1, 1, 8, 8)
    exact = y.double() * 2
    runs = {
        "ours": lambda y: y * 2,
        "plain": lambda y: y * 2 * (1 + 1e-7),
        "off": lambda y: y * 2.001,
        "nan": lambda y: y * float("nan"),
        "small": lambda y: y[..., :4],
    }
    error = rounds.errors(runs, y, exact)
    found = rounds.rows(rounds.measure(runs, y, 3), error, ours="ours", plain="plain")
    assert {row["name"]: row["right"] for row in found} == {
        "ours": True,
        "plain": True,
        "off": False,
        "nan": False,
        "small": False,
    }
    assert rounds.table(found).count("**WRONG**") == 3


def test_ratios_are_medians_of_the_rounds_own():
    seconds = {"ours": [1.0, 2.0, 4.0], "other": [3.0, 6.0, 40.0]}
    row = rounds.rows(seconds, {"ours": 1e-7, "other": 1e-7}, ours="ours", plain="other")[1]
    assert (row["ratio_median"], row["ratio_least"], row["ratio_most"], row["seconds_least"]) == (3.0, 3.0, 10.0, 3.0)


def test_the_command_prints_a_table_and_a_roofline(capsys):
    assert main(["bench", "--size", "32", "--rounds", "2", "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    assert "| emsr_fast |" in shown
    assert "| torch eager |" in shown
    assert "roofline  at best" in shown


def test_json_is_one_object_that_agrees_with_itself(capsys):
    assert main(["bench", "--size", "32", "--rounds", "2", "--device", "cpu", "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    ours = next(row for row in done["rows"] if row["name"] == peers.OURS)
    assert ours["right"]
    assert done["lr_mpx_per_s"] == pytest.approx(32 * 32 / 1e6 / ours["seconds_median"])
    roof = done["roofline"]
    assert roof["fraction"] == pytest.approx(roof["least_seconds"] / ours["seconds_median"])
    assert roof["least_seconds"] >= roof["kernel_gflop"] / roof["peak_gflops"] * (1 - 1e-9)
    assert done["machine"]["commit"]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"size": 3}, "`size` is 3 px"), ({"size": 5000}, "`size` is 5000 px"), ({"repeats": 0}, "`rounds` is 0")],
)
def test_values_out_of_range_are_named(options, message):
    with pytest.raises(UsageError, match=message):
        job.bench(**options)


def test_peers_run_the_same_network(monkeypatch, tmp_path):
    torch.manual_seed(0)
    model = Emsr(EmsrConfig(features=16, blocks=1, heads=4)).eval()
    y = torch.rand(1, 1, 24, 20)
    runs, missing = peers.candidates(model, y, tmp_path, threads=1)
    runs.pop("torch.compile")  # a minute of compiling; test_network.py compiles the network
    error = rounds.errors(runs, y, peers.exact(model, y))
    found = rounds.rows(rounds.measure(runs, y, 1), error, ours=peers.OURS, plain=peers.PLAIN)
    assert {*runs, *missing} >= {"torch eager, channels last", "ONNX Runtime", "OpenVINO", "OpenCV DNN", "MNN", "ncnn"}
    # OpenVINO and MNN have had wrong results: that they are marked is what counts
    assert all(row["right"] for row in found if not row["name"].startswith(("OpenVINO", "MNN")))


def test_one_convolution_is_the_same_in_every_runtime(monkeypatch, tmp_path):
    convolution = script("convolution_cpu", monkeypatch)
    torch.manual_seed(0)
    weight, y = torch.randn(16, 16, 3, 3) / 12, torch.rand(1, 16, 24, 20)
    exact = torch.nn.functional.conv2d(y.double(), weight.double(), padding=1)
    error = rounds.errors(convolution.candidates(weight, y, tmp_path, threads=1), y, exact)
    assert error.keys() >= {convolution.OURS, convolution.PLAIN}
    # half precision would be about 5e-4; MNN has such errors
    assert all(value < 1e-4 for name, value in error.items() if name != "MNN")


def test_a_runtime_that_refuses_the_network_is_missing_with_its_reason(monkeypatch, tmp_path):
    def refuse(path, threads):
        raise RuntimeError("no such\noperator")

    odd = runtimes.Runtime("Odd", "torch", "torch", {"Odd": refuse})
    monkeypatch.setattr(peers, "RUNTIMES", (odd,))
    monkeypatch.setattr(peers, "to_onnx", lambda model, y, path: path)
    runs, missing = peers.candidates(
        Emsr(EmsrConfig(features=16, blocks=1, heads=4)), torch.rand(1, 1, 8, 8), tmp_path, 1
    )
    assert "Odd" not in runs
    assert missing["Odd"] == "it does not take the network: no such operator"


def test_a_runtime_names_the_packages_that_are_not_installed():
    absent = runtimes.Runtime("None", "no_such_module", "no-such-package", {})
    assert absent.absent()[-1] == "no-such-package"
    assert {name for runtime in runtimes.RUNTIMES for name in runtime.ways} >= {"ONNX Runtime", "OpenVINO", "MNN"}


def test_the_page_is_what_the_script_writes(monkeypatch):
    write = script("write_performance", monkeypatch)
    text = write.PAGE.read_text()
    assert write.page(text, write.documents()) == text
    # every kind of result has its place on the page, and shows where it was measured
    row = {"name": "ours", "right": False, "error": 0.5}
    row |= {f"{kind}_{part}": 3.0 for kind in ("seconds", "ratio") for part in ("median", "least", "most")}
    clock = {"ours": 2.0, "published": 44.0, "ratio": 22.0}
    rows = {
        "network_cpu": row,
        "convolution_cpu": row,
        "slice_cpu": {"runs": 2, "published_tiles": 36, "published_timed": 2, "wall": clock, "processor": clock},
        "training_cpu": {"name": "ours", "seconds": 0.5, "times_ours": 1.0}
        | {"processor_s": 1.0, "processor_times_ours": 1.0, "loss_apart": 0.0},
        "scaling_cpu": {"axis": "size", "threads": 2, "batch": 1, "size": 9, "lr_mpx_per_s": 1.0, "times_first": 1.0},
        "python_cpu": {"network": "emsr-x3", "threads": 1, "size": 9, "calls": 81}
        | {"pass": [1.1, 1.2, 1.3], "kernels": [1.0, 1.0, 1.0], "python": [0.05]},
        "commits_cpu": {"name": "a pass", "base": [2.0, 2.0, 2.0], "head": [1.0, 3.0, 2.0]},
    }
    place = machine.describe() | {"processor": "ACME 3000"}
    settings = {
        "size": 9,
        "rounds": 3,
        "model": "emsr-x3",
        "base": "0123abc",
        "head": "4567def",
        "channels": 8,
        "crop": 4,
        "batch": 2,
    }
    made = [
        {"what": what, "machine": place, "settings": settings, "load": [1.5, 1.0], "rows": [values]}
        for what, values in rows.items()
    ]
    shown = write.page(text, made)
    assert shown.count("ACME 3000") == 7
    assert shown.count("load 1.5 on") == 7
    assert "**WRONG**" in shown
    assert "| seconds | 2.0 | 44 | 22.0 |" in shown
    assert "| emsr-x3 | 1 | 9 | 81 | 1200 | 1000 | 50 | 1.200 | 1.100 |" in shown
    assert "| a pass | 2 | 2 | 1.000 (0.500 to 1.500) |" in shown
    assert write.page(shown, write.documents()) == text


def test_scaling_covers_threads_sizes_and_batches(monkeypatch):
    scaling = script("scaling_cpu", monkeypatch)
    cases = scaling.cases(threads=6, sizes=[64, 128], batches=[1, 2], base=32)
    assert [case.threads for case in cases if case.axis == "threads"] == [1, 2, 4, 6]
    found = scaling.rows({case: [1.0, 2.0] for case in cases})
    assert [row["times_first"] for row in found if row["axis"] == "size"] == [1.0, 4.0]


def test_results_say_where_they_come_from(monkeypatch, tmp_path):
    scripts = script("scripts", monkeypatch)
    scripts.write_json(tmp_path / "new" / "r.json", "network_cpu", {"size": 1}, [{"name": "a"}])
    document = json.loads((tmp_path / "new" / "r.json").read_text())
    assert set(document) == {"what", "machine", "settings", "load", "rows"}
    assert {"processor", "threads", "kernels", "torch", "commit"} <= set(document["machine"])
