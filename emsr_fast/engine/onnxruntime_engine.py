"""The network in onnxruntime, on a CPU or through its CUDA provider."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emsr_fast.convert.onnx_model import INPUT, OUTPUT, cpu_session
from emsr_fast.convert.shapes import Shapes
from emsr_fast.errors import BackendError

_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
_DTYPES = {"float": "fp32", "float16": "fp16", "bfloat16": "bf16"}
_MATHS = ("Conv", "FusedConv", "MatMul", "FusedMatMul", "LayerNormalization", "Softmax")


class OnnxRuntimeEngine:
    """Runs an ONNX model of ``to_onnx``; batches of any size that the model takes."""

    shapes: Shapes | None = None

    def __init__(self, onnx: bytes, *, scale: int, precision: str, device: str = "auto") -> None:
        """Load ``onnx``.

        Args:
            onnx: a model of ``to_onnx`` for any shape.
            scale: its HR pixels per LR pixel and axis.
            precision: its precision; on a CPU, onnxruntime computes fp16 graphs in float32 where it has no kernel.
            device: "cpu", "cuda", "cuda:N", or "auto": CUDA if this onnxruntime has it.

        Raises:
            BackendError: the device is not there.
        """
        import onnxruntime

        self.scale, self.precision = scale, precision
        can_cuda = _CUDA in onnxruntime.get_available_providers() and torch.cuda.is_available()
        if device == "auto":
            device = "cuda" if can_cuda else "cpu"
        if device == "cpu":
            self._session = cpu_session(onnx)
        elif not can_cuda:
            raise BackendError(
                f"device {device!r} was asked for, but this onnxruntime {onnxruntime.__version__} has no CUDA here "
                "(pip install onnxruntime-gpu has it): use `device=cpu` or `engine=torch`"
            )
        else:
            index = torch.device(device).index or 0
            # TF32 is on by default, and nobody asked for it
            settings = (_CUDA, {"device_id": index, "use_tf32": 0})
            self._session = onnxruntime.InferenceSession(onnx, providers=[settings])
            if self._session.get_providers()[0] != _CUDA:
                raise BackendError(
                    "onnxruntime fell back to the CPU: its CUDA libraries do not load; use `engine=torch`"
                )
        self._onnx = onnx
        self.device = device
        self.name = f"onnxruntime {onnxruntime.__version__} ({device}, {precision})"

    def run(self, batch: np.ndarray) -> np.ndarray:
        tiles = np.ascontiguousarray(batch, dtype=np.float32)
        return self._session.run([OUTPUT], {INPUT: tiles})[0]

    def layers(self) -> dict[str, int]:
        """Return the precision of the layers, "Conv fp32": count, from a profiled run; only on a CPU."""
        if self.device != "cpu":
            return {}
        with tempfile.TemporaryDirectory() as folder:
            session = cpu_session(self._onnx, enable_profiling=True, profile_file_prefix=f"{folder}/profile")
            session.run([OUTPUT], {INPUT: np.zeros((1, 1, 32, 32), np.float32)})
            events = json.loads(Path(session.end_profiling()).read_text())
        return _layers(events)


def _layers(events: list[dict[str, Any]]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for event in events:
        args = event.get("args", {})
        if event.get("cat") == "Node" and args.get("op_name") in _MATHS and args.get("output_type_shape"):
            (dtype,) = args["output_type_shape"][0]
            counts[f"{args['op_name']} {_DTYPES.get(dtype, dtype)}"] += 1
    return dict(sorted(counts.items()))
