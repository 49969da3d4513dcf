"""The network in PyTorch, on a CPU or a CUDA device."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from emsr_fast._backends import kernels_on
from emsr_fast.convert.graph import Graph
from emsr_fast.convert.shapes import Shapes
from emsr_fast.engine.base import Grey, GreyTiles
from emsr_fast.engine.in_flight import in_flight
from emsr_fast.engine.tile_pipeline import DEPTH, TilePipeline, ieee_float32
from emsr_fast.errors import BackendError, UsageError
from emsr_fast.model.network import Emsr

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class TorchEngine:
    """Runs an ``Emsr`` network where its parameters are.

    Args:
        model: the network, float32. On a CPU it is used itself, on a CUDA device a copy of it.
        precision: of features and weights; sums are always float32. "fp32" is IEEE single precision, with TF32
            off, so that results do not depend on the machine. On a CUDA device "fp16" and "bf16"
            run on our kernels; fp16 rounds to 11 bits, bf16 to 8 bits, which is coarser than a grey level of 255.
            On a CPU with bf16 instructions "bf16" runs through oneDNN, of PyTorch, as a copy of the network.

    Raises:
        UsageError: the precision is unknown.
        BackendError: the model's device cannot compute in it.
    """

    shapes: Shapes | None = None  # any

    def __init__(self, model: Emsr, precision: str = "fp32") -> None:
        if precision not in PRECISIONS:
            raise UsageError(f"`precision` is {precision!r}; give one of {', '.join(PRECISIONS)}")
        device = next(model.parameters()).device
        through_onednn = device.type == "cpu" and precision == "bf16" and has_bf16()
        if precision != "fp32" and device.type != "cuda" and not through_onednn:
            processor = " or a processor with AVX512_BF16 or AMX" if precision == "bf16" else ""
            raise BackendError(
                f"precision {precision} needs a CUDA device{processor}, the model is on {device}: use fp32"
            )
        self.model: nn.Module = model.eval()
        self.scale = model.config.scale
        self.precision, self.device = precision, str(device)
        kernels = kernels_on(device)
        self.name = f"torch ({device}, kernels: {kernels})"
        self._pipeline: TilePipeline | None = None
        if through_onednn:
            self.name = f"torch ({device}, bf16, oneDNN)"
            self.model = Graph(model, "bf16").to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.needs_truth_test = through_onednn  # our own kernels are tested where they are built
        self._tiles = PRECISIONS["fp32" if through_onednn else precision]  # what the network takes
        if device.type == "cuda":
            self.name = f"torch ({device}, {precision}, kernels: {kernels})"
            own = copy.deepcopy(model).to(PRECISIONS[precision])
            own = own.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            self.model = own
            if kernels != "reference":
                self._pipeline = TilePipeline(own, device)

    @property
    def depth(self) -> int:
        """How many batches to have in flight: on a CUDA device, copies and computation run at the same time."""
        return 1 if self._pipeline is None else DEPTH

    @property
    def converts(self) -> bool:
        """Whether grey values are converted on the device."""
        return self._pipeline is not None

    def layers(self) -> dict[str, int]:
        """Return nothing: PyTorch does not say what its layers compute in."""
        return {}

    def run(self, batch: np.ndarray) -> np.ndarray:
        (result,) = self.stream([batch])
        return result

    def stream(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the HR tiles of each of ``batches``, in order, while the next ones are in flight."""
        for result in in_flight(batches, self.submit, self.collect, self.depth):
            assert not isinstance(result, GreyTiles)  # for the type checker: no grey values were submitted
            yield result

    def submit(self, batch: np.ndarray, grey: Grey | None = None, part: tuple[slice, slice] | None = None) -> Any:
        if self._pipeline is not None:
            return self._pipeline.submit(batch, grey, part)
        if grey is not None:
            raise ValueError(f"{self.name} takes float32 tiles only: convert grey values first")
        return batch

    def collect(self, ticket: Any) -> np.ndarray | GreyTiles:
        return self._run_alone(ticket) if self._pipeline is None else self._pipeline.collect(ticket)

    @torch.inference_mode()
    def _run_alone(self, batch: np.ndarray) -> np.ndarray:
        tiles = torch.from_numpy(np.ascontiguousarray(batch, dtype=np.float32))
        with ieee_float32():
            result: np.ndarray = self.model(tiles.to(self.device, self._tiles)).float().cpu().numpy()
            return result


def has_bf16() -> bool:
    """Return whether PyTorch finds bf16 instructions on this processor; one with AMX has AVX512_BF16, too."""
    return bool(torch.cpu._is_avx512_bf16_supported())
