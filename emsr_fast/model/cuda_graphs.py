"""The network as CUDA graphs: one launch for a forward pass, static buffers, no allocation in a replay."""

from __future__ import annotations

import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from emsr_fast import _backends, _native
from emsr_fast.model.network import Emsr
from emsr_fast.ops import OPERATORS

WARM_UPS = 3  # passes before a capture: Triton compiles, cuDNN chooses, constants go to the device
MOST_GRAPHS = 12  # of a network; each holds the features of its shape

# one capture at a time: each begins by waiting for the whole device, which would end another thread's
_capturing = threading.Lock()


def wait_for(device: torch.device) -> None:
    """Wait for all work on ``device``, but not while a graph is captured: that would end the capture."""
    with _capturing:
        torch.cuda.synchronize(device)


class Graph:
    """A function of one tensor, captured for the shape, dtype and device of ``y``; for one stream at a time.

    Other tensors that ``run`` reads are read again at each replay, at their addresses of the capture. Graphs may share
    a ``pool`` of memory if the result of each is used before the next one runs.
    """

    def __init__(self, run: Callable[[Tensor], Tensor], y: Tensor, pool: Any = None) -> None:
        with _capturing, torch.cuda.device(y.device):
            self.y = y.clone()
            self._graph = torch.cuda.CUDAGraph()
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(WARM_UPS):
                    run(self.y)
            torch.cuda.current_stream().wait_stream(side)
            # other threads may use the device meanwhile
            with torch.cuda.graph(self._graph, pool, side, capture_error_mode="thread_local"):
                self.out = run(self.y)

    def replay(self, y: Tensor) -> Tensor:
        """Return ``run(y)``, in a buffer that the next replay overwrites; enqueued on the current stream."""
        self.y.copy_(y)
        self._graph.replay()
        return self.out


class GraphedNetwork:
    """Calls a network under ``torch.inference_mode()`` on a CUDA device by CUDA graphs, the least used dropped first.

    The first call of a shape captures a graph, which takes a few passes. If ``why_not`` gives a reason, the network is
    called without a graph. With EMSR_FAST_CUDA_GRAPHS=0 this is always so.
    """

    def __init__(self, network: Emsr) -> None:
        self.network = network
        self._lock = threading.Lock()
        self._graphs: OrderedDict[Any, Graph | None] = OrderedDict()

    def __call__(self, y: Tensor) -> Tensor:
        """Return ``network(y)``, from the graph of this shape, stream, precision and weights."""
        if why_not(self.network, y) is not None:
            return self.network(y)
        stream = torch.cuda.current_stream(y.device)
        # weights are read where they are: changed ones are seen, moved ones need a graph of their own
        weights = _native.fingerprint(self.network.parameters())
        precision = tuple(value for _, _, value in tf32_switches())
        key = (tuple(y.shape), y.dtype, y.device, stream.cuda_stream, _backends.preferred(), precision, weights)
        with self._lock:
            if key not in self._graphs:
                self._add(key, y)
            self._graphs.move_to_end(key)
            graph = self._graphs[key]
            # a copy of one's own, before the next replay
            return self.network(y) if graph is None else graph.replay(y).clone()

    def _add(self, key: Any, y: Tensor) -> None:
        while len(self._graphs) >= MOST_GRAPHS:
            # its buffers go: whatever still runs in them must have ended
            wait_for(y.device)
            self._graphs.popitem(last=False)
        try:
            self._graphs[key] = Graph(self.network, y)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._graphs[key] = None
            warnings.warn(f"no CUDA graph for {tuple(y.shape)}, running launch by launch: {error}", stacklevel=3)


def why_not(network: Emsr, y: Tensor) -> str | None:
    """Return why a call of ``network`` on ``y`` does not run as a CUDA graph, or None if it does."""
    if not y.is_cuda:
        return f"y is on {y.device}, graphs need a CUDA device"
    if not torch.is_inference_mode_enabled():
        return "gradients are possible: call under torch.inference_mode()"
    if os.environ.get("EMSR_FAST_CUDA_GRAPHS", "1") == "0":
        return "EMSR_FAST_CUDA_GRAPHS is 0"
    if y.numel() == 0:
        return "y is empty"
    if torch.is_autocast_enabled("cuda"):
        return "autocast keeps casts of weights between calls: convert the network instead, .half() or .bfloat16()"
    if torch.cuda.is_current_stream_capturing():
        return "another graph is being captured"
    # a capture that fails spoils the allocator's later ones in torch before 2.12: what cannot be captured never begins
    levels = network.config.levels
    details = OPERATORS["atrous_details"]
    if details.choose(y, levels) == "reference":
        reason = details.why_not("triton", y, levels) or "EMSR_FAST_BACKEND asks for it"
        return f"the reference copies constants to the device, and {reason}"
    if any(module._forward_hooks or module._forward_pre_hooks for module in network.modules()):
        return "a module has hooks, which a replay would pass over"
    return None


def tf32_switches() -> list[tuple[Any, str, Any]]:
    """Return PyTorch's switches of TF32 for convolutions and matrices: object, attribute, and its value.

    A program sets ``allow_tf32``, or ``fp32_precision`` (since torch 2.9); after the latter, the former cannot be read.
    """
    cudnn: Any = torch.backends.cudnn
    matmul: Any = torch.backends.cuda.matmul
    try:
        return [(place, "allow_tf32", place.allow_tf32) for place in (cudnn, matmul)]
    except RuntimeError:
        return [(place, "fp32_precision", place.fp32_precision) for place in (cudnn.conv, matmul)]
