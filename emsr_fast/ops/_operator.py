"""What an operator declares once, and what follows from it: registration with PyTorch, choice of a backend, reasons."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from emsr_fast import _backends
from emsr_fast.forking import one_thread_after_fork

MOST_KNOWN = 1000  # calls whose backend an operator remembers
LIBRARY = torch.library.Library("emsr_fast", "FRAGMENT")
_PLAIN = (Tensor, Parameter)
_VALUES = (type(None), str, int, float, bool)
# the dispatcher's keys of a tensor and of this thread; the usual ones ask it for no work besides the kernel on a CPU
_keys_of, _keys_of_thread = torch._C._dispatch_keys, torch._C._dispatch_tls_local_include_set
_function_mode, _profiled = torch._C._is_torch_function_mode_enabled, torch._C._autograd._profiler_enabled
_any_autocast, _grad_enabled = torch._C._is_any_autocast_enabled, torch.is_grad_enabled
_compiling = torch.compiler.is_dynamo_compiling
_USUAL = ("CPU", "AutogradCPU", "AutocastCPU", "ADInplaceOrView", "BackendSelect")
_UNUSUAL = ~functools.reduce(
    operator.or_, (torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key)).raw_repr() for key in _USUAL)
)


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
    gradient_on: tuple[str, ...] | None = None  # the backends that have it, None: all; elsewhere as if there were none
    public: bool = True
    backends: tuple[str, ...] = field(init=False)
    automatic: tuple[str, ...] = field(init=False)  # those that "auto" tries
    _registered: Callable[..., Tensor] = field(init=False)
    _known: dict[tuple[Any, ...], str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.backends = tuple(b for b in _backends.BACKENDS if b in self.kernels or b == "reference")
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
        return _backends.why_not(backend, arguments[0]) or self.limits(backend, *arguments)

    def choose(self, *arguments: Any, backend: str = "auto") -> str:
        """Return the backend that runs this call: the one asked for, or the first that can.

        Raises:
            BackendError: the backend asked for, here or by EMSR_FAST_BACKEND, is unknown or cannot run; says why.
        """
        names = _backends.candidates(backend, self.automatic)
        for name in names:
            if self.why_not(name, *arguments) is None:
                return name
        raise _backends.refusal({name: self.why_not(name, *arguments) for name in names})

    def __call__(self, *arguments: Any, backend: str = "auto") -> Tensor:
        kind, direct = look_at(arguments)
        if direct:
            # without the dispatcher of PyTorch, which takes as long as all else here
            chosen = self._checked_and_chosen(kind, arguments, backend)
            return self.reference(*arguments) if chosen == "reference" else self._computed(chosen, arguments)
        if wants_gradient(*arguments) and not self._has_gradient(kind, arguments, backend):
            return self.reference(*arguments)
        if self._checked_and_chosen(kind, arguments, backend) == "reference" or has_tangent(*arguments):
            return self.reference(*arguments)
        return self._registered(*arguments, backend)

    def _run(self, *given: Any) -> Tensor:
        """Compute: what PyTorch calls for CPU and CUDA tensors, also when the operator is not called by us."""
        *arguments, backend = given
        # C++ trusts every shape
        chosen = self._checked_and_chosen(look_at(arguments)[0], arguments, backend)
        if chosen == "reference":
            out, result = self.like(*arguments), self.reference(*arguments)
            return result if result.stride() == out.stride() and result.dtype == out.dtype else out.copy_(result)
        return self._computed(chosen, arguments)

    def _computed(self, chosen: str, arguments: Sequence[Any]) -> Tensor:
        out = self.like(*arguments)
        self.kernels[chosen](arguments[0], out, *arguments[1:])
        return out

    def trains_on_cpu(self, *arguments: Any, backend: str = "auto") -> bool:
        """Return whether what takes this operator's place in training, with CPU kernels, can run this call."""
        if has_tangent(*arguments) or _transformed():
            return False
        self.check(*arguments)
        names = _backends.candidates(backend, self.automatic)
        return next((name for name in names if self.why_not(name, *arguments) is None), None) == "cpp"

    def _has_gradient(self, kind: tuple[Any, ...] | None, arguments: Sequence[Any], backend: str) -> bool:
        """Check the arguments and return whether the backend that would run them has a gradient of its own."""
        if self.gradient is not None and self.gradient_on is None:
            return True
        if self.gradient_on is None or _transformed():
            self.check(*arguments)
            return False
        key = kind, backend, _backends.preferred(), self.gradient_on
        if kind is not None and (known := self._known.get(key)) is not None:
            return known in self.gradient_on
        self.check(*arguments)
        names = _backends.candidates(backend, self.automatic)
        chosen = next((name for name in names if self.why_not(name, *arguments) is None), "reference")
        if kind is not None:
            self._keep(key, chosen)
        return chosen in self.gradient_on

    def _keep(self, key: tuple[Any, ...], chosen: str) -> None:
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known[key] = chosen

    def _checked_and_chosen(self, kind: tuple[Any, ...] | None, arguments: Sequence[Any], backend: str) -> str:
        """Check the arguments and return the backend that runs them; what is found is remembered for their ``kind``.

        Check and choice follow from the kind, the preference and autocast: a second call of equal ones is neither
        checked nor chosen for again.
        """
        if kind is not None:
            key = kind, backend, _backends.preferred()
            if (chosen := self._known.get(key)) is not None:
                return chosen
        self.check(*arguments)
        chosen = self.choose(*arguments, backend=backend)
        if kind is not None:
            one_thread_after_fork()
            self._keep(key, chosen)
        return chosen


OPERATORS: dict[str, Operator] = {}  # the public ones, by name


def register(name: str, schema: str, run: Callable[..., Any], fake: Callable[..., Any]) -> None:
    """Define ``emsr_fast::name`` with its kernel for CPU and CUDA tensors and its shape function."""
    LIBRARY.define(f"{name}{schema}")
    for key in ("CPU", "CUDA"):
        LIBRARY.impl(name, run, key)
    torch.library.register_fake(f"emsr_fast::{name}", fake, lib=LIBRARY)


def look_at(arguments: Sequence[Any]) -> tuple[tuple[Any, ...] | None, bool]:
    """Return what check and choice of a call depend on, and whether its kernel may be called directly.

    The first is the shapes, dtypes and devices of the tensors, and the other arguments; or None where an argument only
    stands for a tensor: its sizes may not be numbers. A kernel is not called directly where PyTorch has more to do:
    for autograd, ``torch.func``, ``torch.compile``, modes, tracers and profilers, for tensors that are not on the CPU,
    and for those that are not what lies in their memory (subclasses, negated views, zeros).
    """
    if _compiling():
        return None, False
    kind: list[Any] = []
    direct = not (
        _keys_of_thread().raw_repr() & _UNUSUAL or forward_ad._current_level >= 0 or _function_mode() or _profiled()
    )
    if _any_autocast():
        direct = False
        kind.append(torch.is_autocast_enabled(arguments[0].device.type))
    recorded = _grad_enabled()
    for argument in arguments:
        if type(argument) in _PLAIN:
            kind += argument.shape, argument.dtype
            if _keys_of(argument).raw_repr() & _UNUSUAL or (recorded and argument.requires_grad):
                direct = False
                kind.append(argument.device)
        elif type(argument) in _VALUES:
            kind.append(argument)
        else:
            return None, False
    return tuple(kind), direct


def _transformed() -> bool:
    """Return whether ``torch.func`` transforms this call: its derivatives are not those of autograd."""
    return not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is not None


def has_tangent(*arguments: Any) -> bool:
    """Return whether a forward derivative (``torch.func.jvp``) is asked for: our operators would say it is zero."""
    # outside every forward derivative, as nearly always, the level is -1
    if torch.compiler.is_compiling() or forward_ad._current_level < 0:
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
    shape = x.shape
    if len(shape) != 4 or shape[1] < 1 or shape[2] < 1 or shape[3] < 1:
        raise ValueError(f"x must be (B, C, H, W), at least one channel, row and column, got shape {tuple(x.shape)}")


def check_weights(x: Tensor, **weights: tuple[Tensor, tuple[int, ...]]) -> None:
    """Raise ValueError unless each of ``weights`` has the shape beside it and lies on the device of ``x``."""
    for name, (weight, shape) in weights.items():
        if weight.shape != shape:
            channels = x.shape[1]
            raise ValueError(f"{name} must have shape {shape} for {channels} channels, got {tuple(weight.shape)}")
    check_devices(x, **{name: weight for name, (weight, _) in weights.items()})


def check_devices(x: Tensor, **others: Tensor | None) -> None:
    """Raise ValueError unless all ``others`` lie on the device of ``x``."""
    device = x.device
    for name, other in others.items():
        if other is not None and other.device != device:
            raise ValueError(f"{name} is on {other.device}, x on {device}: move both to one device")
