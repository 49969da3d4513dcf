"""The network in TensorRT or TensorRT-RTX, on a CUDA device."""

from __future__ import annotations

import json
import queue
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emsr_fast import _native
from emsr_fast.convert.onnx_model import INPUT, OUTPUT
from emsr_fast.convert.shapes import Shapes, Size
from emsr_fast.convert.tensorrt_builder import Provider
from emsr_fast.errors import BackendError

_LANES = 2  # while one computes, the other's tiles are on their way
# how the engine inspector of each release writes a data type, most telling first
_WORDS = {
    **{"bf16": "bf16", "bfloat16": "bf16", "fp16": "fp16", "float16": "fp16", "half": "fp16"},
    **{"fp8": "fp8", "int8": "int8", "fp32": "fp32", "float": "fp32"},
}


class RefusedError(BackendError):
    """The runtime refuses a serialized engine: it was built for another GPU, driver or version."""


class TensorRTEngine:
    """Runs a serialized engine; may be called from several threads.

    There are two lanes. Each has a stream and, for each shape of batch, an execution context bound to tensors that keep
    their addresses. A call copies its tiles into pinned memory. Then transfer, network and transfer back run on the
    lane's stream, as one CUDA graph.
    """

    def __init__(
        self,
        provider: Provider,
        serialized: bytes,
        *,
        scale: int,
        precision: str,
        shapes: Shapes,
        device: torch.device,
        runtime_cache: bytes = b"",
    ) -> None:
        """Load ``serialized`` onto ``device``, a CUDA device.

        Raises:
            RefusedError: the runtime does not take it.
            BackendError: the device has not enough memory.
        """
        trt = provider.module
        self.scale, self.precision, self.shapes = scale, precision, shapes
        self._trt, self._rtx = trt, provider.is_rtx
        self._device = torch.device("cuda", device.index if device.index is not None else torch.cuda.current_device())
        self.device = str(self._device)
        with torch.cuda.device(self._device):
            self._runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
            self._engine = self._runtime.deserialize_cuda_engine(serialized)
            if self._engine is None:
                raise RefusedError(f"{provider.name} {provider.version} does not load the engine on {self.device}")
            self._config = self._rtx_config(runtime_cache) if self._rtx else None
            self._lanes: queue.SimpleQueue[_Lane] = queue.SimpleQueue()
            for _ in range(_LANES):
                self._lanes.put(_Lane(self))
        gpu = torch.cuda.get_device_name(self._device)
        self.name = f"{provider.name} {provider.version} ({gpu}, {precision}, {shapes} px)"

    def _rtx_config(self, runtime_cache: bytes) -> Any:
        """Return RTX's settings: it compiles kernels for each shape before its first run, with its own CUDA graphs."""
        trt, config = self._trt, self._engine.create_runtime_config()
        # compiled later, the kernels that run would not be those that the truth test saw
        config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        self._cache = config.create_runtime_cache()
        if runtime_cache:
            # false if made elsewhere: then it starts empty
            self._cache.deserialize(runtime_cache)
        config.set_runtime_cache(self._cache)
        return config

    def warm_up(self) -> None:
        """Run the best shape once, so that all its kernels are there."""
        batch, rows, cols = self.shapes.best
        self.run(np.zeros((batch, 1, rows, cols), np.float32))

    def runtime_cache(self) -> bytes:
        """Return the kernels that RTX has compiled so far, to keep them; nothing for full TensorRT."""
        return bytes(self._cache.serialize()) if self._rtx else b""

    def run(self, batch: np.ndarray) -> np.ndarray:
        count, _, rows, cols = batch.shape
        least, most = self.shapes.least[0], self.shapes.most[0]
        if not self.shapes.holds(least, rows, cols):
            raise BackendError(
                f"{self.name} was given tiles of {rows}x{cols} px; give the `tile` and `halo` it was built for"
            )
        out = np.empty((count, 1, rows * self.scale, cols * self.scale), np.float32)
        busy: list[tuple[_Lane, slice]] = []
        try:
            for start in range(0, count, most):
                part = slice(start, min(start + most, count))
                lane = self._free_lane(busy, out)
                busy.append((lane, part))
                # rows of a batch do not know of each other: missing ones are made up, and thrown away
                lane.start(batch[part], (max(part.stop - part.start, least), rows, cols))
            while busy:
                self._finish(busy, out)
        finally:
            for lane, _ in busy:
                lane.stream.synchronize()
                self._lanes.put(lane)
        return out

    def _free_lane(self, busy: list[tuple[_Lane, slice]], out: np.ndarray) -> _Lane:
        try:
            return self._lanes.get_nowait()
        except queue.Empty:
            if busy:
                self._finish(busy, out)
            return self._lanes.get()

    def _finish(self, busy: list[tuple[_Lane, slice]], out: np.ndarray) -> None:
        lane, part = busy[0]
        lane.finish(out[part])
        del busy[0]
        self._lanes.put(lane)

    def context(self) -> Any:
        """Return a new execution context."""
        made = self._engine.create_execution_context(self._config) if self._rtx else None
        made = made or self._engine.create_execution_context()
        if made is None:
            raise BackendError(f"not enough memory on {self.device} for the engine; give a smaller `tile`")
        return made

    def layers(self) -> dict[str, int]:
        """Return the precision of the engine's layers, "CONVOLUTION fp16": count; empty if it does not tell."""
        inspector = self._engine.create_engine_inspector()
        return inspected_layers(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))


class _Lane:
    """One stream and its bound contexts; used by one thread at a time."""

    def __init__(self, engine: TensorRTEngine) -> None:
        self.engine = engine
        self.stream = torch.cuda.Stream(engine.device)
        self._bound: dict[Size, _Bound] = {}
        self._running: _Bound | None = None

    def start(self, tiles: np.ndarray, size: Size) -> None:
        """Start on ``tiles``; ``size`` is the batch size for the engine, at least that of ``tiles``."""
        if size not in self._bound:
            self._bound[size] = _Bound(self.engine, self.stream, size)
        self._running = self._bound[size]
        self._running.start(tiles)

    def finish(self, out: np.ndarray) -> None:
        """Wait for what was started, and write it to ``out``."""
        assert self._running is not None  # for the type checker: a lane is finished after it was started
        self.stream.synchronize()
        out[:] = self._running.host_out.numpy()[: len(out)]


class _Bound:
    """An execution context for one shape, bound to tensors of its own."""

    def __init__(self, engine: TensorRTEngine, stream: torch.cuda.Stream, size: Size) -> None:
        batch, rows, cols = size
        hr_shape = (batch, 1, rows * engine.scale, cols * engine.scale)
        self.stream = stream
        with torch.cuda.device(engine.device), torch.cuda.stream(stream):
            self.host_in = torch.zeros(batch, 1, rows, cols, pin_memory=True)
            self.host_out = torch.empty(hr_shape, pin_memory=True)
            self.device_in = torch.zeros(batch, 1, rows, cols, device=engine.device)
            self.device_out = torch.empty(hr_shape, device=engine.device)
            self.context = engine.context()
            self.context.set_optimization_profile_async(0, stream.cuda_stream)
            self.context.set_input_shape(INPUT, tuple(self.device_in.shape))
            self.context.set_tensor_address(INPUT, _native.address(self.device_in))
            self.context.set_tensor_address(OUTPUT, _native.address(self.device_out))
            # the first run allocates, and must not be captured
            self._steps()
            stream.synchronize()
            # RTX captures by itself what it compiles
            self.graph = None if engine._rtx else torch.cuda.CUDAGraph()
            if self.graph is not None:
                with torch.cuda.graph(self.graph, stream=stream, capture_error_mode="thread_local"):
                    self._steps()

    def _steps(self) -> None:
        self.device_in.copy_(self.host_in, non_blocking=True)
        if not self.context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
            raise BackendError("TensorRT could not run the engine; its log on stderr says why")
        self.host_out.copy_(self.device_out, non_blocking=True)

    def start(self, tiles: np.ndarray) -> None:
        self.host_in.numpy()[: len(tiles)] = tiles
        with torch.cuda.stream(self.stream):
            if self.graph is not None:
                self.graph.replay()
            else:
                self._steps()


def gpu_identity(device: torch.device) -> dict[str, Any]:
    """Return the properties of the machine that an engine is built for: GPU name, compute capability, driver."""
    found = torch.cuda.get_device_properties(device)
    return {"gpu": found.name, "capability": [found.major, found.minor], "driver": _driver()}


def _driver() -> str:
    """Return the version of the NVIDIA driver, as the kernel tells it."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text()
    except OSError:
        # as on WSL: what CUDA the driver supports
        return f"CUDA {torch._C._cuda_getDriverVersion()}"  # type: ignore[attr-defined]
    return next((word for word in text.split() if word[0].isdigit() and word.count(".") >= 1), "unknown")


def inspected_layers(text: str) -> dict[str, int]:
    """Return "KIND precision": count from what an engine inspector says in JSON, by the layers' first outputs."""
    try:
        layers = json.loads(text).get("Layers", [])
    except (ValueError, AttributeError):
        return {}
    counts: Counter[str] = Counter()
    for layer in layers:
        # engines built without details give names only
        for kind, dtype in _told(layer) if isinstance(layer, dict) else ():
            counts[f"{kind} {dtype}"] += 1
    return dict(sorted(counts.items()))


def _told(layer: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for output in layer.get("Outputs", [])[:1]:
        told = str(output.get("Format/Datatype", output.get("Datatype", ""))).lower()
        precision = next((name for word, name in _WORDS.items() if word in told), None)
        # integers are shapes and indices
        if precision:
            yield str(layer.get("LayerType", "layer")), precision
