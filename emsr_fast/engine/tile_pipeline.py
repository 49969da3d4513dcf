"""Runs batches of tiles as CUDA graphs; copies run at the same time, in pinned buffers and streams of their own."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from emsr_fast.engine import grey as conversion
from emsr_fast.engine.base import Grey, GreyTiles
from emsr_fast.model.cuda_graphs import Graph, tf32_switches, wait_for
from emsr_fast.model.network import Emsr

DEPTH = 2  # batches in flight: one is copied while another is computed
MOST_SHAPES = 16  # that stay captured

Run = Callable[[Tensor], Tensor]


class _Lane:
    """A stream of a CUDA device; on a CPU everything is done at once."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    @contextmanager
    def between(self, begin: torch.cuda.Event | None, end: torch.cuda.Event | None) -> Iterator[None]:
        """Enqueue the work of a ``with`` block on this stream, after the event ``begin``; then record ``end``."""
        if self._stream is None:
            yield
            return
        with torch.cuda.stream(self._stream):
            if begin is not None:
                begin.wait()
            yield
            if end is not None:
                end.record()


class _Slot:
    """The buffers and events of one batch in flight."""

    def __init__(self, shape: tuple[int, ...], out: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
        on_gpu = device.type == "cuda"
        self.host_in = torch.empty(shape, dtype=dtype, pin_memory=on_gpu)
        self.device_in = torch.empty(shape, dtype=dtype, device=device)
        self.device_out = torch.empty(out, dtype=dtype, device=device)
        self.host_out = torch.empty(out, dtype=dtype, pin_memory=on_gpu)
        # of grey values: clipped, not finite
        self.device_counts = torch.empty(2, dtype=torch.int64, device=device)
        self.host_counts = torch.empty(2, dtype=torch.int64, pin_memory=on_gpu)
        self.arrived, self.computed, self.left = (torch.cuda.Event() if on_gpu else None for _ in range(3))


class _Shape:
    """The graph for batches of one shape, and its free slots."""

    def __init__(self, replay: Run, shape: tuple[int, ...], scale: int, device: torch.device) -> None:
        self.replay = replay
        self._shape, self._scale, self._device = shape, scale, device
        self._free: dict[object, list[_Slot]] = {}

    def take(self, grey: bool, part: tuple[slice, slice] | None) -> tuple[_Slot, list[_Slot]]:
        """Return a slot that nothing reads or writes, and the list that it goes back to.

        There is a new one at first, and where two streams are read in turns.
        """
        b, _, h, w = self._shape
        rows, cols = self._scale * h, self._scale * w
        if part is not None:
            rows, cols = (len(range(*span.indices(side))) for span, side in zip(part, (rows, cols), strict=True))
        dtype = torch.uint8 if grey else torch.float32
        free = self._free.setdefault((dtype, rows, cols), [])
        if free:
            return free.pop(0), free
        slot = _Slot(self._shape, (b, 1, rows, cols), dtype, self._device)
        if self._device.type == "cuda":
            # its memory may have been freed by work that the caller's stream has not done yet, and ours do not wait for
            wait_for(self._device)
        return slot, free


class Ticket:
    """A batch in flight."""

    def __init__(self, slot: _Slot, free: list[_Slot], is_grey: bool) -> None:
        self.slot, self.free, self.is_grey = slot, free, is_grey


class TilePipeline:
    """Runs a network on batches of NumPy arrays, (B, 1, H, W), in the precision of its weights.

    It is made for CUDA devices; on a CPU the same code runs without streams, pinned memory and graphs. Only one thread
    at a time may use it.
    """

    def __init__(self, model: Emsr, device: torch.device) -> None:
        self._model, self._device = model, device
        self._weight = next(model.parameters())
        self._in, self._compute, self._out = (_Lane(device) for _ in range(3))
        # one after the other on one stream, the graphs share the memory of their features
        self._pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None
        self._shapes: OrderedDict[tuple[int, ...], _Shape] = OrderedDict()
        self._table: tuple[Grey, Tensor] | None = None

    def _replay_of(self, shape: tuple[int, ...]) -> Run:
        if self._device.type != "cuda":
            return lambda y: self._model(y.to(self._weight.dtype))
        y = torch.zeros(shape, dtype=self._weight.dtype, device=self._device)
        wait_for(self._device)
        # baked into the graph: not needed at a replay
        with ieee_float32():
            graph = Graph(self._model, y, self._pool)
        wait_for(self._device)
        return graph.replay

    def _shape(self, shape: tuple[int, ...]) -> _Shape:
        if shape not in self._shapes:
            while len(self._shapes) >= MOST_SHAPES:
                if self._device.type == "cuda":
                    wait_for(self._device)
                self._shapes.popitem(last=False)
            self._shapes[shape] = _Shape(self._replay_of(shape), shape, self._model.config.scale, self._device)
        self._shapes.move_to_end(shape)
        return self._shapes[shape]

    def _on_device(self, grey: Grey) -> Tensor:
        if self._table is None or self._table[0] is not grey:
            self._table = grey, torch.from_numpy(grey.table).to(self._device)
        return self._table[1]

    @torch.inference_mode()
    def submit(self, batch: np.ndarray, grey: Grey | None = None, part: tuple[slice, slice] | None = None) -> Ticket:
        """Enqueue ``batch``: float32, or uint8 with ``grey``; then only ``part`` of the result comes back."""
        with torch.cuda.device_of(self._weight):
            shape = self._shape(batch.shape)
            slot, free = shape.take(grey is not None, part)
            try:
                # "unsafe": the batch may be float64, and is what the slot holds otherwise
                np.copyto(slot.host_in.numpy(), batch, casting="unsafe")
                self._enqueue(slot, shape.replay, grey, part)
            except BaseException:
                if self._device.type == "cuda":
                    wait_for(self._device)  # its streams may be at work on the slot
                free.append(slot)
                raise
        return Ticket(slot, free, grey is not None)

    def _enqueue(self, slot: _Slot, replay: Run, grey: Grey | None, part: tuple[slice, slice] | None) -> None:
        with self._in.between(None, slot.arrived):
            slot.device_in.copy_(slot.host_in, non_blocking=True)
        with self._compute.between(slot.arrived, slot.computed):
            if grey is None:
                slot.device_out.copy_(replay(slot.device_in), non_blocking=True)
            else:
                tiles = conversion.to_model(slot.device_in, self._on_device(grey))
                pixels, counts = conversion.from_model(replay(tiles), grey.low, grey.high, part)
                slot.device_out.copy_(pixels, non_blocking=True)
                slot.device_counts.copy_(counts, non_blocking=True)
        with self._out.between(slot.computed, slot.left):
            slot.host_out.copy_(slot.device_out, non_blocking=True)
            if grey is not None:
                slot.host_counts.copy_(slot.device_counts, non_blocking=True)

    def collect(self, ticket: Ticket) -> np.ndarray | GreyTiles:
        """Wait for a batch, and return its HR tiles, float32 or grey values."""
        slot = ticket.slot
        if slot.left is not None:
            slot.left.synchronize()
        pixels = slot.host_out.numpy().copy()
        result = GreyTiles(pixels, *slot.host_counts.tolist()) if ticket.is_grey else pixels
        ticket.free.append(slot)
        return result


@contextmanager
def ieee_float32() -> Iterator[None]:
    """Switch TF32 off inside a ``with`` block; PyTorch convolves in TF32 on CUDA devices by default."""
    before = tf32_switches()
    for place, name, _ in before:
        setattr(place, name, False if name == "allow_tf32" else "ieee")
    try:
        yield
    finally:
        for place, name, value in before:
            setattr(place, name, value)
