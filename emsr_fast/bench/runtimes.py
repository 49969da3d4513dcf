"""Runtimes that read the network as an ONNX file and run it on a CPU."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from emsr_fast.bench.rounds import Run


@dataclass(frozen=True)
class Runtime:
    """A runtime, and the ways in which it can run the network."""

    name: str
    module: str
    package: str  # the name for pip
    ways: dict[str, Callable[[Path, int], Run]]  # from the ONNX file and the number of threads, by the row's name

    def absent(self) -> list[str]:
        """Return the packages that are not installed here, of those that it and the export to ONNX need."""
        needed = {"onnxscript": "onnxscript", self.module: self.package}
        return [package for module, package in needed.items() if importlib.util.find_spec(module) is None]


def _in_onnxruntime(path: Path, threads: int) -> Run:
    onnxruntime: Any = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda y: torch.from_numpy(session.run(None, {"y": y.numpy()})[0])


def _in_openvino(path: Path, threads: int, **settings: str) -> Run:
    openvino: Any = importlib.import_module("openvino")
    properties = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(path, "CPU", {**properties, **settings})
    return lambda y: torch.from_numpy(compiled([y.numpy()])[0].copy())


def _in_opencv(path: Path, threads: int, engine: str = "ENGINE_AUTO") -> Run:
    cv2: Any = importlib.import_module("cv2")
    # OpenCV 4.10 and older have one engine and no choice
    chosen = [getattr(cv2.dnn, engine)] if hasattr(cv2.dnn, engine) else []
    network = cv2.dnn.readNetFromONNX(str(path), *chosen)

    def run(y: torch.Tensor) -> torch.Tensor:
        cv2.setNumThreads(threads)
        network.setInput(y.numpy())
        return torch.from_numpy(network.forward().copy())

    return run


def _in_mnn(path: Path, threads: int) -> Run:
    importlib.import_module("MNN")
    # its command line also sends a record of its use; the converter alone does not
    converter: Any = importlib.import_module("_tools")
    converted = path.with_suffix(".mnn")
    converter.mnnconvert(
        ["", "-f", "ONNX", "--modelFile", str(path), "--MNNModel", str(converted), "--bizCode", "none"]
    )
    expr: Any = importlib.import_module("MNN.expr")
    nn: Any = importlib.import_module("MNN.nn")
    manager = nn.create_runtime_manager(({"backend": "CPU", "numThread": threads, "precision": "high"},))
    module = nn.load_module_from_file(str(converted), ["y"], ["out"], runtime_manager=manager)

    def run(y: torch.Tensor) -> torch.Tensor:
        image = expr.const(y.numpy(), list(y.shape), expr.NCHW)
        return torch.from_numpy(expr.convert(module.onForward([image])[0], expr.NCHW).read().copy())

    return run


RUNTIMES = (
    Runtime("ONNX Runtime", "onnxruntime", "onnxruntime", {"ONNX Runtime": _in_onnxruntime}),
    Runtime(
        "OpenVINO",
        "openvino",
        "openvino",
        {
            "OpenVINO": _in_openvino,
            "OpenVINO, SNIPPETS_MODE=DISABLE": lambda path, n: _in_openvino(path, n, SNIPPETS_MODE="DISABLE"),
        },
    ),
    Runtime(
        "OpenCV DNN",
        "cv2",
        "opencv-python-headless",
        {
            "OpenCV DNN": _in_opencv,
            "OpenCV DNN, classic engine": lambda path, n: _in_opencv(path, n, "ENGINE_CLASSIC"),
        },
    ),
    Runtime("MNN", "MNN", "MNN", {"MNN": _in_mnn}),
)
# why runtimes that others compare with are not here
CANNOT = {
    "ncnn": "its tensors have at most 4 dimensions, window attention needs more; bench/measure/convolution_cpu.py"
}
