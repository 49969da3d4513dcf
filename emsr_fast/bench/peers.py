"""The same network in other runtimes."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor

from emsr_fast import Emsr, _backends
from emsr_fast.bench.rounds import Run
from emsr_fast.bench.runtimes import CANNOT, RUNTIMES
from emsr_fast.convert.shapes import Shapes
from emsr_fast.engine.factory import open_engine, why_not_engine
from emsr_fast.model.cuda_graphs import GraphedNetwork
from emsr_fast.wording import shortened

OURS, PLAIN = "emsr_fast", "torch eager"
_LONGEST_REASON = 300  # characters


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
    missing: dict[str, str] = {}
    if y.is_cuda:
        if reason := why_not_engine("trt", str(y.device)):
            missing["TensorRT"] = reason
        else:
            found["TensorRT, fp32"] = _in_tensorrt(model, y)
        return found, missing
    here = [runtime for runtime in RUNTIMES if not runtime.absent()]
    missing |= CANNOT | {r.name: f"pip install {' '.join(r.absent())}" for r in RUNTIMES if r not in here}
    if here:
        path = to_onnx(model, y, folder / "network.onnx")
    for name, make in ((name, make) for runtime in here for name, make in runtime.ways.items()):
        try:
            found[name] = make(path, threads)
        except Exception as error:  # of any kind: it is the runtime's own
            missing[name] = f"it does not take the network: {shortened(' '.join(str(error).split()), _LONGEST_REASON)}"
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
