"""The network on a CPU as a list of kernel calls: what Python finds out once for a shape is not found out again.

``Emsr.forward`` comes here by itself under ``torch.inference_mode()``; the first call of a shape is computed as always,
and what it calls is written down. EMSR_FAST_CPU_REPLAY=0 computes every call so. Same kernels, same bits.

Only a network as its configuration builds it is replayed: what it computes then follows from its modules' names, types
and settings, and its weights, all of which are looked at in every call; what the classes of this package do is not.
"""

from __future__ import annotations

import functools
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from emsr_fast import _dispatch, _native, _recording
from emsr_fast.model.config import EmsrConfig
from emsr_fast.ops._buffers import Pool
from emsr_fast.ops._packed import unchanged

if TYPE_CHECKING:
    from emsr_fast.model.network import Emsr

MOST_SHAPES = 12  # of a network; all use the same memory
# of features; larger ones take so long that Python takes 1 %, and their memory would be missed elsewhere
MOST_BYTES = 64 << 20

_SETTINGS = ("config", "levels", "heads", "window", "fit", "factor")  # of modules, besides their parameters
_METHODS = ("forward", "compute")


class Memory:
    """What the images of one pass at a time lie in, up to ``pixels`` LR pixels: features, and those of few channels."""

    def __init__(self, pixels: int, config: EmsrConfig) -> None:
        self.pixels = pixels
        self.few = max(2 * config.levels, config.scale**2)
        self._pools = Pool(pixels * self.few), Pool(pixels * config.features)

    def __len__(self) -> int:
        return sum(map(len, self._pools))

    def __contains__(self, t: Tensor) -> bool:
        return any(t in pool for pool in self._pools)

    def empty(self, shape: tuple[int, ...], pixels: int) -> Tensor | None:
        """Return an uninitialised tensor in a pass of ``pixels`` LR pixels, or None if it would not fit."""
        few_channels, features = self._pools
        return (few_channels if math.prod(shape) <= pixels * self.few else features).empty(shape)

    def array(self, t: Tensor) -> np.ndarray:
        """Return the memory of a contiguous tensor of these, for as long as this lives."""
        return next(pool.array(t) for pool in self._pools if t in pool)


class Recording:
    """The kernel calls of one pass (a ``_recording.Listener``), and why they cannot stand for another one, if so."""

    def __init__(self, memory: Memory, pixels: int, parameters: Iterable[Tensor]) -> None:
        self.why_not: str | None = None
        self._memory, self._pixels = memory, pixels
        self._parameters = {_native.address(p) for p in parameters}
        self._calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self._packed: list[tuple[tuple[Tensor, ...], tuple[Tensor, ...]]] = []
        self._kept: list[Tensor] = []  # what the calls read besides images
        self._input = self._output = np.empty(0)

    def memory(self, shape: tuple[int, ...]) -> Tensor | None:
        return self._memory.empty(shape, self._pixels)

    def packed(self, weights: tuple[Tensor, ...], seen: tuple[Tensor, ...]) -> None:
        self._packed.append((weights, seen))

    def launched(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        images: Sequence[Tensor],
        weights: Sequence[Tensor],
        constants: Sequence[Tensor],
    ) -> None:
        self._check_images(images)
        if not self._parameters.issuperset(map(_native.address, weights)):
            self.why_not = "a kernel read a copy of a weight"
        self._kept += [*weights, *constants]
        self._calls.append((function, arguments))

    def concatenated(self, images: Sequence[Tensor]) -> Tensor:
        result = torch.cat(list(images), dim=1)
        place = self.memory(tuple(result.shape))
        self._check_images(images)
        if place is None or self.why_not:
            return result
        arguments = ([self._memory.array(image) for image in images], 1, self._memory.array(place))
        self._calls.append((np.concatenate, arguments))
        return place.copy_(result)

    def _check_images(self, images: Iterable[Tensor]) -> None:
        # in the memory of the recording is only what our kernels wrote
        if not all(image in self._memory for image in images):
            self.why_not = "not only our kernels computed"

    def of(self, forward: Callable[[Tensor], Tensor], y: Tensor) -> Tensor:
        """Return ``forward(y)`` and write down what it calls."""
        place = self.memory(tuple(y.shape))
        assert place is not None  # for the type checker: it was made for this shape
        place.copy_(y)
        before = _recording.listener()
        try:
            _recording.tell(self)
            out = forward(place)
        finally:
            _recording.tell(before)
        self._check_images([out])
        if not self.why_not:
            self._input, self._output = self._memory.array(place), self._memory.array(out)
        return out.clone()

    def up_to_date(self) -> bool:
        """Return whether every packed weight is still what it was."""
        return all(unchanged(weights, seen) for weights, seen in self._packed)

    def replay(self, y: Tensor) -> Tensor:
        """Return what was recorded, for ``y``."""
        torch.from_numpy(self._input).copy_(y)
        for function, arguments in self._calls:
            function(*arguments)
        return torch.from_numpy(self._output).clone()


class Recordings:
    """The recordings of one network, the least used dropped first. One pass at a time is in their memory."""

    def __init__(self) -> None:
        self._in_use = threading.Lock()
        self._of_shape: OrderedDict[Any, Recording | str] = OrderedDict()  # or why there is none
        self._weights: tuple[Any, ...] = ()
        self._parameters: list[Tensor] = []  # so that no other one takes the place of one of them
        self._memory: Memory | None = None

    def run(
        self, config: EmsrConfig, forward: Callable[[Tensor], Tensor], parameters: list[Tensor], y: Tensor
    ) -> Tensor:
        """Return ``forward(y)``, which computes with ``parameters``, by replaying it where that is possible."""
        if not self._in_use.acquire(blocking=False):
            return forward(y)
        try:
            weights = (*map(id, parameters), _native.fingerprint(parameters))
            key = (tuple(y.shape), torch.get_num_threads(), _dispatch.preferred())
            found = self._of_shape.get(key) if weights == self._weights else None
            if isinstance(found, str):
                return forward(y)
            if found is not None and found.up_to_date():
                self._of_shape.move_to_end(key)
                return found.replay(y)
            latest = next((r for r in reversed(self._of_shape.values()) if isinstance(r, Recording)), None)
            if weights != self._weights or (latest is not None and not latest.up_to_date()):
                # all others are of these weights, too
                self._of_shape.clear()
                self._weights, self._parameters = weights, parameters
            return self._record(key, config, forward, y)
        except BaseException:
            # also where a signal cut it short: memory may be lost to the pools
            self._of_shape.clear()
            self._memory = None
            raise
        finally:
            self._in_use.release()

    def _record(self, key: Any, config: EmsrConfig, forward: Callable[[Tensor], Tensor], y: Tensor) -> Tensor:
        memory = self._memory
        if memory is not None and y.numel() > memory.pixels:
            # that of the largest shape will serve all of them
            self._of_shape.clear()
            memory = None
        if memory is None:
            memory = self._memory = Memory(y.numel(), config)
        while len(self._of_shape) >= MOST_SHAPES:
            self._of_shape.popitem(last=False)
        recording = Recording(memory, y.numel(), self._parameters)
        out = recording.of(forward, y)
        self._of_shape[key] = recording.why_not or recording
        if all(isinstance(found, str) for found in self._of_shape.values()):
            self._memory = None
        return out


_recordings: WeakKeyDictionary[nn.Module, Recordings] = WeakKeyDictionary()


def _start_anew() -> None:
    # a child of fork() has the thread that forked, and no other that would give its lock back
    global _recordings
    _recordings = WeakKeyDictionary()


os.register_at_fork(after_in_child=_start_anew)


def _described(module: nn.Module, weights: list[Tensor]) -> tuple[Any, ...]:
    """Return what decides how ``module`` computes, and append its weights to ``weights``, as often as it has them."""
    own, parameters, modules = module.__dict__, module._parameters, module._modules
    weights += [weight for weight in parameters.values() if weight is not None]
    return (
        type(module),
        *map(own.get, _SETTINGS),
        tuple(parameters),
        # attributes that hide a method of the class, a parameter or a module
        any(name in own for names in (_METHODS, parameters, modules) for name in names),
        bool(module._forward_hooks or module._forward_pre_hooks or module._compiled_call_impl),
        [(name, child and _described(child, weights)) for name, child in modules.items()],
    )


@functools.lru_cache(16)
def _as_built(config: EmsrConfig) -> tuple[Any, ...]:
    from emsr_fast.model.network import Emsr

    with torch.device("meta"):
        return _described(Emsr(config), [])


def why_not(network: Emsr, y: Tensor) -> str | None:
    """Return why a call of ``network`` on ``y`` is not replayed, or None if it is."""
    return _examined(network, y, [])


def _examined(network: Emsr, y: Tensor, weights: list[Tensor]) -> str | None:
    """Return what ``why_not`` does, and append the network's weights to ``weights``."""
    if type(y) is not Tensor or y.device.type != "cpu" or y.dtype != torch.float32 or y.numel() == 0:
        return "y is not a float32 image in memory"
    if not torch.is_inference_mode_enabled():
        return "gradients are possible: call under torch.inference_mode()"
    if 4 * y.numel() * network.config.features > MOST_BYTES:
        return f"the features take more than {MOST_BYTES >> 20} MiB: kept memory would cost more than Python"
    if os.environ.get("EMSR_FAST_CPU_REPLAY", "1") == "0":
        return "EMSR_FAST_CPU_REPLAY is 0"
    if torch.is_autocast_enabled("cpu"):
        return "autocast chooses the precision call by call"
    if _watched():
        return "a trace, a transform, a mode or a hook of all modules wants every operator"
    if _described(network, weights) != _as_built(network.config):
        return "a module has hooks, is compiled, or is not as the network's configuration builds it"
    if not all(type(weight) in (Tensor, nn.Parameter) for weight in weights):
        return "a weight is no plain tensor"
    return None


def _watched() -> bool:
    """Return whether somebody else listens to operators or modules; True where this torch cannot say."""
    try:
        return bool(
            torch.jit.is_tracing()  # type: ignore[attr-defined]
            or torch._C._are_functorch_transforms_active()
            or torch._C._len_torch_dispatch_stack()
            or torch._C._len_torch_function_stack()
            or nn.modules.module._has_any_global_hook()
        )
    except AttributeError:
        return True


def run(network: Emsr, forward: Callable[[Tensor], Tensor], y: Tensor) -> Tensor:
    """Return ``forward(y)``, which ``network`` owns, by replaying it where that is possible."""
    parameters: list[Tensor] = []
    if _examined(network, y, parameters) is not None:
        return forward(y)
    recordings = _recordings.get(network)
    if recordings is None:
        recordings = _recordings.setdefault(network, Recordings())
    return recordings.run(network.config, forward, parameters, y)
