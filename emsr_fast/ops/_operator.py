"""What an operator declares once, and what follows from it: registration with PyTorch, choice of a backend, reasons."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from emsr_fast import _dispatch

LIBRARY = torch.library.Library("emsr_fast", "FRAGMENT")


@dataclass(eq=False)
class Operator:
    """One operator: ``emsr_fast::name`` in PyTorch, and ``OPERATORS[name]`` here.

    Calling it checks its arguments, chooses a backend and computes. All functions take the arguments of the schema in
    its order, without the backend; the first of them is a tensor.
    """

    name: str
    schema: str  # as torch.library has it; the last argument is "str backend"
    check: Callable[..., None]  # raises ValueError where an argument does not fit
    like: Callable[..., Tensor]  # the result, uninitialised: shape and layout
    reference: Callable[..., Tensor]  # the definition in plain PyTorch
    kernels: Mapping[str, Callable[..., None]]  # by backend; take x, the result to be written, the other arguments
    limits: Callable[..., str | None]  # takes the backend first; why its kernel cannot run this call
    # kernels that rest on what only a GPU can show (descriptors of wgmma, barriers of their own): until one has, they
    # run where they are named (backend=, EMSR_FAST_BACKEND), never by "auto"
    on_request: tuple[str, ...] = ()
    remember: Callable[..., None] | None = None  # torch.library's setup_context
    gradient: Callable[..., tuple[Any, ...]] | None = None  # its backward; None: gradients follow the reference
    public: bool = True
    backends: tuple[str, ...] = field(init=False)
    automatic: tuple[str, ...] = field(init=False)  # those that "auto" tries
    _registered: Callable[..., Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.backends = tuple(b for b in _dispatch.BACKENDS if b in self.kernels or b == "reference")
        self.automatic = tuple(b for b in self.backends if b not in self.on_request)
        register(self.name, self.schema, self._run, lambda *given: self.like(*given[:-1]))
        if self.gradient is not None:
            torch.library.register_autograd(
                f"emsr_fast::{self.name}", self.gradient, setup_context=self.remember, lib=LIBRARY
            )
        self._registered = getattr(torch.ops.emsr_fast, self.name).default
        if self.public:
            OPERATORS[self.name] = self

    def why_not(self, backend: str, *arguments: Any) -> str | None:
        """Return why ``backend`` cannot run this call, or None if it can."""
        if backend == "reference":
            return None
        if backend not in self.kernels:
            return f"{self.name} has no {backend} kernel"
        return _dispatch.why_not(backend, arguments[0]) or self.limits(backend, *arguments)

    def choose(self, *arguments: Any, backend: str = "auto") -> str:
        """Return the backend that runs this call: the one asked for, or the first that can.

        Raises:
            BackendError: the backend asked for, here or by EMSR_FAST_BACKEND, is unknown or cannot run; says why.
        """
        names = _dispatch.candidates(backend, self.automatic)
        return _dispatch.first(names, lambda name: self.why_not(name, *arguments))

    def __call__(self, *arguments: Any, backend: str = "auto") -> Tensor:
        self.check(*arguments)
        if self.gradient is None and wants_gradient(*arguments):
            return self.reference(*arguments)
        chosen = self.choose(*arguments, backend=backend)
        if chosen == "reference" or (self.gradient is not None and has_tangent(*arguments)):
            return self.reference(*arguments)
        if torch.compiler.is_compiling():
            # what is checked now only stands for the tensors to come
            return self._registered(*arguments, backend)
        _under_way.call = self, arguments, chosen
        try:
            return self._registered(*arguments, backend)
        finally:
            _under_way.call = None

    def _run(self, *given: Any) -> Tensor:
        """Compute: what PyTorch calls for CPU and CUDA tensors, also when the operator is not called by us."""
        arguments = given[:-1]
        chosen = self._chosen_for(arguments)
        if chosen is None:
            # C++ trusts every shape
            self.check(*arguments)
            chosen = self.choose(*arguments, backend=given[-1])
        out = self.like(*arguments)
        if chosen == "reference":
            result = self.reference(*arguments)
            return result if result.stride() == out.stride() and result.dtype == out.dtype else out.copy_(result)
        self.kernels[chosen](arguments[0], out, *arguments[1:])
        return out

    def _chosen_for(self, arguments: tuple[Any, ...]) -> str | None:
        """Return what ``__call__`` chose a moment ago for these very arguments, or None if it did not."""
        if (call := _under_way.call) is None:
            return None
        _under_way.call = None
        operator, checked, chosen = call
        same = operator is self and all(map(_same, arguments, checked))
        return chosen if same else None


OPERATORS: dict[str, Operator] = {}  # the public ones, by name


class _UnderWay(threading.local):
    # an operator, its arguments after the check, and the backend; until PyTorch has come back to us
    call: tuple[Operator, tuple[Any, ...], str] | None = None


_under_way = _UnderWay()


def _same(a: Any, b: Any) -> bool:
    return a is b or (not isinstance(a, Tensor) and not isinstance(b, Tensor) and bool(a == b))


def register(name: str, schema: str, run: Callable[..., Any], fake: Callable[..., Any]) -> None:
    """Define ``emsr_fast::name`` with its kernel for CPU and CUDA tensors and its shape function."""
    LIBRARY.define(f"{name}{schema}")
    for key in ("CPU", "CUDA"):
        LIBRARY.impl(name, run, key)
    torch.library.register_fake(f"emsr_fast::{name}", fake, lib=LIBRARY)


def has_tangent(*arguments: Any) -> bool:
    """Return whether a forward derivative (``torch.func.jvp``) is asked for: our operators would say it is zero."""
    if torch.compiler.is_compiling():
        return False
    for argument in arguments:
        if isinstance(argument, Tensor) and forward_ad.unpack_dual(argument).tangent is not None:
            return True
    return False


def wants_gradient(*arguments: Any) -> bool:
    """Return whether autograd, backward or forward (``torch.func.jvp``), would follow an operator on these."""
    if torch.is_grad_enabled() and any(isinstance(a, Tensor) and a.requires_grad for a in arguments):
        return True
    return has_tangent(*arguments)


def check_images(x: Tensor) -> None:
    """Raise ValueError unless ``x`` is a batch of images, (B, C, H, W), with at least a pixel each."""
    if x.dim() != 4 or 0 in x.shape[1:]:
        raise ValueError(f"x must be (B, C, H, W), at least one channel, row and column, got shape {tuple(x.shape)}")


def check_weights(x: Tensor, **weights: tuple[Tensor, tuple[int, ...]]) -> None:
    """Raise ValueError unless each of ``weights`` has the shape beside it and lies on the device of ``x``."""
    device = x.device
    for name, (weight, shape) in weights.items():
        if weight.shape != shape:
            channels = x.shape[1]
            raise ValueError(f"{name} must have shape {shape} for {channels} channels, got {tuple(weight.shape)}")
        if weight.device != device:
            raise ValueError(f"{name} is on {weight.device}, x on {x.device}: move both to one device")
