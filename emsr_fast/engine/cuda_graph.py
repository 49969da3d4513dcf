"""Batches through CUDA graphs, their copies beside the computation: pinned buffers, a stream for each way."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from emsr_fast.model.network import Emsr
from emsr_fast.model.runner import Graph, tf32_switches, wait_for

DEPTH = 2  # batches in flight: one is copied while another is computed
MOST_SHAPES = 16  # that stay captured

Item = TypeVar("Item")
Ticket = TypeVar("Ticket")
Result = TypeVar("Result")


def in_flight(
    items: Iterable[Item], submit: Callable[[Item], Ticket], collect: Callable[[Ticket], Result], depth: int
) -> Iterator[Result]:
    """Yield ``collect(submit(item))`` in order, with up to ``depth`` items submitted and not collected."""
    waiting: deque[Ticket] = deque()
    try:
        for item in items:
            waiting.append(submit(item))
            if len(waiting) >= depth:
                yield collect(waiting.popleft())
        while waiting:
            yield collect(waiting.popleft())
    finally:
        # left early: the buffers are free again only when everything has ended
        while waiting:
            collect(waiting.popleft())


class _Slot:
    """Buffers of one batch in flight, and how far it is."""

    def __init__(self, shape: tuple[int, ...], out_shape: tuple[int, ...], device: torch.device) -> None:
        self.host_in = torch.empty(shape, pin_memory=True)
        self.device_in = torch.empty(shape, device=device)
        self.device_out = torch.empty(out_shape, device=device)
        self.host_out = torch.empty(out_shape, pin_memory=True)
        self.arrived, self.computed, self.left = (torch.cuda.Event() for _ in range(3))


class _Shape:
    """The graph of one shape of batches, and its slots that are free."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.free = [self._new_slot() for _ in range(DEPTH)]

    def _new_slot(self) -> _Slot:
        return _Slot(tuple(self.graph.y.shape), tuple(self.graph.out.shape), self.graph.y.device)

    def take(self) -> _Slot:
        """Return a slot that nothing reads or writes; a new one where two streams are read in turns."""
        return self.free.pop(0) if self.free else self._new_slot()


class CudaPipeline:
    """Runs a network on a CUDA device for batches of NumPy arrays, (B, 1, H, W) float32 to HR.

    The device computes in the precision of the network's weights. Not for two threads at a time.
    """

    def __init__(self, model: Emsr, device: torch.device) -> None:
        self._model, self._device = model, device
        with torch.cuda.device(device):
            self._in, self._compute, self._out = (torch.cuda.Stream() for _ in range(3))
            # one after the other on one stream, the graphs share the memory of their features
            self._pool = torch.cuda.graph_pool_handle()
        self._dtype = next(model.parameters()).dtype
        self._shapes: OrderedDict[tuple[int, ...], _Shape] = OrderedDict()

    def stream(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the HR tiles, float32, of each of ``batches`` in order, while the next are on their way."""
        return in_flight(batches, self._submit, self._collect, DEPTH)

    def _shape(self, batch: np.ndarray) -> _Shape:
        if batch.shape not in self._shapes:
            while len(self._shapes) >= MOST_SHAPES:
                wait_for(self._device)
                self._shapes.popitem(last=False)
            y = torch.zeros(batch.shape, dtype=self._dtype, device=self._device)
            wait_for(self._device)
            # baked into the graph: not needed at a replay
            with ieee_float32():
                self._shapes[batch.shape] = _Shape(Graph(self._model.compute, y, self._pool))
            wait_for(self._device)
        self._shapes.move_to_end(batch.shape)
        return self._shapes[batch.shape]

    @torch.inference_mode()
    def _submit(self, batch: np.ndarray) -> tuple[_Shape, _Slot]:
        with torch.cuda.device(self._device):
            shape = self._shape(batch)
            slot = shape.take()
            slot.host_in.copy_(torch.from_numpy(np.ascontiguousarray(batch, dtype=np.float32)))
            with torch.cuda.stream(self._in):
                _copy(slot.device_in, slot.host_in, slot.arrived)
            with torch.cuda.stream(self._compute):
                slot.arrived.wait()
                _copy(slot.device_out, shape.graph.replay(slot.device_in), slot.computed)
            with torch.cuda.stream(self._out):
                slot.computed.wait()
                _copy(slot.host_out, slot.device_out, slot.left)
        return shape, slot

    def _collect(self, ticket: tuple[_Shape, _Slot]) -> np.ndarray:
        shape, slot = ticket
        slot.left.synchronize()
        result = slot.host_out.numpy().copy()
        shape.free.append(slot)
        return result


@contextmanager
def ieee_float32() -> Iterator[None]:
    """Switch TF32 off inside a ``with`` block: PyTorch convolves in it on CUDA devices unless told otherwise."""
    before = tf32_switches()
    for place, name, _ in before:
        setattr(place, name, False if name == "allow_tf32" else "ieee")
    try:
        yield
    finally:
        for place, name, value in before:
            setattr(place, name, value)


def _copy(target: Tensor, source: Tensor, done: torch.cuda.Event) -> None:
    target.copy_(source, non_blocking=True)
    done.record()
