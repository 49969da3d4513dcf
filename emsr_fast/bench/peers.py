"""The same network in other runtimes."""

from __future__ import annotations

import copy
import importlib
import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emsr_fast import Emsr, _backends
from emsr_fast.bench.rounds import Run
from emsr_fast.convert.shapes import Shapes
from emsr_fast.engine.factory import open_engine, why_not_engine
from emsr_fast.model.cuda_graphs import GraphedNetwork

OURS, PLAIN = "emsr_fast", "torch eager"


def in_torch(model: Emsr, backend: str) -> Run:
    """Return the network in PyTorch, its operators on ``backend``; on a CUDA device as graphs where they can be."""
    network = GraphedNetwork(model)

    def run(y: Tensor) -> Tensor:
        with torch.inference_mode(), _backends.use_backend(backend):
            return network(y)

    return run


def exact(model: Emsr, y: Tensor) -> Tensor:
    """Return the network's output for ``y`` in float64."""
    return in_torch(copy.deepcopy(model).double(), "reference")(y.double())


def to_onnx(model: Emsr, y: Tensor, path: Path) -> Path:
    """Write the network, its operators in plain PyTorch, for inputs of the shape of ``y``."""
    with torch.no_grad(), _backends.use_backend("reference"):
        torch.onnx.export(model, (y,), path, dynamo=True, input_names=["y"], output_names=["out"], verbose=False)
    return path


def in_onnxruntime(path: Path, threads: int) -> Run:
    onnxruntime: Any = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda y: torch.from_numpy(session.run(None, {"y": y.numpy()})[0])


def in_openvino(path: Path, threads: int, **settings: str) -> Run:
    openvino: Any = importlib.import_module("openvino")
    properties = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(path, "CPU", {**properties, **settings})
    return lambda y: torch.from_numpy(compiled([y.numpy()])[0].copy())


def ours_and_plain(model: Emsr) -> dict[str, Run]:
    """Return our kernels and torch's own operators, by name."""
    return {OURS: in_torch(model, "auto"), PLAIN: in_torch(model, "reference")}


def candidates(model: Emsr, y: Tensor, folder: Path, threads: int) -> tuple[dict[str, Run], dict[str, str]]:
    """Return the peers that run here on inputs like ``y``, by name, ours first; and why the others do not.

    Args:
        model: on the device of ``y``, in evaluation mode.
        y: (B, 1, H, W), float32.
        folder: for exported networks; needed as long as the candidates are used.
        threads: for the peers that do not take torch's number.
    """
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    found = ours_and_plain(model) | {
        "torch eager, channels last": in_torch(last, "reference"),
        "torch.compile": _compiled(model),
    }
    missing = {}
    if y.is_cuda:
        if reason := why_not_engine("trt", str(y.device)):
            missing["TensorRT"] = reason
        else:
            found["TensorRT, fp32"] = _in_tensorrt(model, y)
        return found, missing
    for name, module in (("ONNX Runtime", "onnxruntime"), ("OpenVINO", "openvino")):
        absent = [part for part in ("onnxscript", module) if importlib.util.find_spec(part) is None]
        if absent:
            missing[name] = f"pip install {' '.join(absent)}"
    if len(missing) < 2:
        path = to_onnx(model, y, folder / "network.onnx")
    if "ONNX Runtime" not in missing:
        found["ONNX Runtime"] = in_onnxruntime(path, threads)
    if "OpenVINO" not in missing:
        found["OpenVINO"] = in_openvino(path, threads)
        found["OpenVINO, SNIPPETS_MODE=DISABLE"] = in_openvino(path, threads, SNIPPETS_MODE="DISABLE")
    return found, missing


def _in_tensorrt(model: Emsr, y: Tensor) -> Run:
    shapes = Shapes.only(y.shape[0], y.shape[2], y.shape[3])
    engine, _ = open_engine("trt", model, shapes=shapes, precision="fp32", device=str(y.device))
    # batches come from the host and go back to it, as in infer
    return lambda batch: torch.from_numpy(engine.run(batch.cpu().numpy())).to(batch.device)


def _compiled(model: Emsr) -> Run:
    """Return the network through torch.compile, its operators in plain PyTorch, so that it may fuse them."""
    compiled = torch.compile(copy.deepcopy(model), dynamic=False)

    def run(y: Tensor) -> Tensor:
        with torch.inference_mode(), _backends.use_backend("reference"):
            result: Tensor = compiled(y)
            return result

    return run
