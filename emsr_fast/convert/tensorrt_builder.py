"""Builds a serialized engine from an ONNX model, by TensorRT or TensorRT-RTX, with strongly typed networks."""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from emsr_fast.callbacks import Say
from emsr_fast.convert.onnx_model import INPUT
from emsr_fast.convert.shapes import Shapes
from emsr_fast.errors import BackendError, UsageError
from emsr_fast.installing import install_line
from emsr_fast.threads import Thread

PROVIDERS = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}  # name: module
# what an engine of TensorRT-RTX 1.7 runs on unless told otherwise; its documentation knows no 9.0 or 10.0
_RTX_CAPABILITIES = ((8, 0), (8, 6), (8, 9), (12, 0), (12, 1))
_LINE_EVERY_S = 5.0


class Provider(NamedTuple):
    """A TensorRT that is installed."""

    name: str  # "tensorrt" or "tensorrt-rtx"
    version: str
    module: Any

    @property
    def is_rtx(self) -> bool:
        """Whether kernels are compiled when the engine is loaded."""
        return self.name == "tensorrt-rtx"


class Build(NamedTuple):
    """A serialized engine and what is known about it without a GPU."""

    engine: bytes
    layers: dict[str, int]  # "CONVOLUTION HALF": how many of the strongly typed network
    timing: bytes  # what the builder measured, for the next build; nothing of RTX


def load_provider(name: str = "auto", capability: tuple[int, int] | None = None) -> Provider:
    """Return the TensorRT asked for.

    Args:
        name: "tensorrt", "tensorrt-rtx", or "auto": the first that is installed and supports the GPU.
        capability: compute capability of the GPU to run on; None if there is no GPU: then only RTX can build.

    Raises:
        UsageError: there is no such provider.
        BackendError: it is not installed, or its libraries cannot be loaded.
    """
    if name not in ("auto", *PROVIDERS):
        raise UsageError(f"`provider` is {name!r}; give auto, {', '.join(PROVIDERS)}")
    reasons = []
    order = list(PROVIDERS) if capability else list(PROVIDERS)[::-1]
    for candidate in order if name == "auto" else (name,):
        if name == "auto" and candidate == "tensorrt-rtx" and capability and capability not in _RTX_CAPABILITIES:
            reasons.append(
                f"tensorrt-rtx is not documented for compute capability {capability[0]}.{capability[1]} "
                "(`provider=tensorrt-rtx` tries it all the same)"
            )
            continue
        if reason := why_not_installed(candidate):
            reasons.append(reason)
            continue
        module = importlib.import_module(PROVIDERS[candidate])
        return Provider(candidate, module.__version__, module)
    raise BackendError(f"TensorRT cannot be used: {'; '.join(reasons)}; install one: {install_line('trt')}")


def why_not_installed(name: str) -> str | None:
    """Return why the provider ``name`` cannot be imported, or None if it can."""
    if importlib.util.find_spec(PROVIDERS[name]) is None:
        return f"{name} is not installed"
    try:
        importlib.import_module(PROVIDERS[name])
    except (ImportError, OSError, RuntimeError) as error:
        return f"{name} cannot be loaded ({error})"
    return None


def build(
    provider: Provider,
    onnx: bytes,
    shapes: Shapes,
    *,
    timing: bytes = b"",
    expected_s: float | None = None,
    say: Say = lambda line: None,
) -> Build:
    """Return the engine of an ONNX model, in the precision of the graph, with TF32 off.

    The builder works in another thread, so that progress is shown and Ctrl-C ends it at its next step.

    Args:
        timing: the timing cache of an earlier build on this GPU, or empty.
        expected_s: how long a build like this took, or None.

    Raises:
        BackendError: the parser or the builder failed; it gives their message.
    """
    trt = provider.module
    logger = _logger(trt)
    try:
        builder = trt.Builder(logger)
    except TypeError as error:  # what a constructor that returns nothing becomes
        raise BackendError(
            f"{provider.name} {provider.version} cannot build here ({logger.last_error or error}); full TensorRT "
            "builds on a machine with the GPU only, `provider=tensorrt-rtx` on any"
        ) from error
    # TensorRT 10 must be asked for it; later ones know nothing else, and may know no flag
    strongly_typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if strongly_typed is None else 1 << int(strongly_typed))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx):
        errors = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        raise BackendError(f"{provider.name} {provider.version} cannot read the ONNX model: {'; '.join(errors)}")
    config = builder.create_builder_config()
    # on by default, and ten bits instead of 23 for who asked for float32
    config.clear_flag(trt.BuilderFlag.TF32)
    # the truth test asks what each layer became
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    profile = builder.create_optimization_profile()
    profile.set_shape(INPUT, *((b, 1, h, w) for b, h, w in (shapes.least, shapes.best, shapes.most)))
    config.add_optimization_profile(profile)
    if not provider.is_rtx:  # which measures nothing while it builds
        config.set_timing_cache(config.create_timing_cache(timing), ignore_mismatch=False)
    monitor = _monitor(trt)
    config.progress_monitor = monitor
    engine = _in_thread(lambda: builder.build_serialized_network(network, config), monitor, expected_s, say)
    if engine is None:
        raise BackendError(
            f"{provider.name} {provider.version} could not build the engine for {shapes} px "
            f"({logger.last_error or 'it did not say why'}); give a smaller `tile`, or give a smaller `most`"
        )
    measured = b"" if provider.is_rtx else bytes(config.get_timing_cache().serialize())
    return Build(bytes(engine), _layers(network), measured)


def _layers(network: Any) -> dict[str, int]:
    """Return how many layers of each kind and precision the strongly typed network has; data movement left out."""
    counts: Counter[str] = Counter()
    for i in range(network.num_layers):
        layer = network.get_layer(i)
        kind = layer.type.name
        if kind in ("CONVOLUTION", "MATRIX_MULTIPLY", "NORMALIZATION", "SOFTMAX"):
            counts[f"{kind} {layer.get_output(0).dtype.name}"] += 1
    return dict(sorted(counts.items()))


def _logger(trt: Any) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]
        """Keeps the last error for the message to the user; everything else is dropped."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last_error = ""

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.last_error = message

    return Logger()


def _monitor(trt: Any) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Keeps the builder's outermost phase and its progress; stops the builder when asked."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.phases: dict[str, list[int]] = {}  # steps done and to do, outermost first
            self.stop = False

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            self.phases[name] = [0, steps]

        def step_complete(self, name: str, step: int) -> bool:
            if name in self.phases:
                self.phases[name][0] = step + 1
            return not self.stop

        def phase_finish(self, name: str) -> None:
            self.phases.pop(name, None)

        def __str__(self) -> str:
            return ", ".join(f"{name.lower()} {done}/{steps}" for name, (done, steps) in list(self.phases.items())[:2])

    return Monitor()


def _in_thread(work: Callable[[], Any], monitor: Any, expected_s: float | None, say: Say) -> Any:
    """Return the result of ``work``; say every few seconds how far it is. An exception here stops it first."""
    result: list[Any] = []
    start = time.monotonic()
    thread = Thread(lambda: result.append(work()), "emsr-build", daemon=True)
    try:
        while not thread.ends_within(_LINE_EVERY_S):
            seconds = time.monotonic() - start
            usual = f", the last one like it took {expected_s:.0f} s" if expected_s else ""
            say(f"build   {seconds:.0f} s{usual}: {monitor}")
    finally:
        monitor.stop = True
        thread.wait()
    return result[0] if result else None
