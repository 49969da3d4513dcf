"""From a network to an engine that is built, cached and tested."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import inspect
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch

from emsr_fast import __version__
from emsr_fast._backends import why_slow
from emsr_fast.callbacks import Say
from emsr_fast.convert import graph, onnx_model
from emsr_fast.convert.onnx_model import to_onnx, why_no_onnx
from emsr_fast.convert.shapes import Shapes
from emsr_fast.convert.tensorrt_builder import PROVIDERS, build, load_provider, why_not_installed
from emsr_fast.engine import cache
from emsr_fast.engine.base import Engine
from emsr_fast.engine.onnxruntime_engine import OnnxRuntimeEngine
from emsr_fast.engine.tensorrt_engine import RefusedError, TensorRTEngine, gpu_identity
from emsr_fast.engine.torch_engine import TorchEngine
from emsr_fast.engine.truth import truth_test
from emsr_fast.errors import BackendError, UsageError
from emsr_fast.installing import install_line
from emsr_fast.model import blocks, network
from emsr_fast.model.network import Emsr
from emsr_fast.model.zoo import choose_device
from emsr_fast.reference import atrous, conv3x3, edge_gate, window_attention

ENGINES = ("torch", "onnx", "trt")
# what each computes in unless told otherwise: TensorRT is for speed
PRECISIONS = {"torch": "fp32", "onnx": "fp32", "trt": "fp16"}


class Inspected(Engine, Protocol):
    """An engine that tells the precision of its layers."""

    def layers(self) -> dict[str, int]:
        """Return "KIND precision": count, empty if the runtime does not say."""
        ...


def check_engine(name: str, precision: str | None = None, device: str = "auto", instead: str = "") -> None:
    """Raise an error unless engine ``name`` can run here; only what it needs is loaded.

    Args:
        name: one of ``ENGINES``.
        precision: "fp32", "fp16", "bf16", or None for the engine's own.
        device: "auto", "cpu", "cuda" or "cuda:N".
        instead: a command that works without it, for the message.

    Raises:
        UsageError: there is no such engine, or it does not have the precision.
        BackendError: it cannot run here; says what is missing.
    """
    if name not in ENGINES:
        raise UsageError(f"`engine` is {name!r}; give {', '.join(ENGINES)}")
    if precision is not None:
        onnx_model.check_precision(precision)
        if name == "onnx" and precision == "bf16":
            raise UsageError("engine onnx does not compute in bf16; leave `precision` out, or give `engine=trt`")
    if reason := why_not_engine(name, device):
        raise BackendError(f"engine {name} cannot run here: {reason}" + (f"; this works: {instead}" if instead else ""))


def why_not_engine(name: str, device: str = "auto") -> str | None:
    """Return why engine ``name`` cannot run on ``device``, or None if it can."""
    if name == "torch":
        return None
    if name == "onnx":
        return why_no_onnx()
    if device == "cpu":
        return "TensorRT needs an NVIDIA GPU, and `device` is cpu"
    if not torch.cuda.is_available():
        built = "" if torch.version.cuda else " (this torch was built without CUDA)"
        return f"TensorRT needs an NVIDIA GPU, and torch sees none{built}"
    installed = [reason for provider in PROVIDERS if (reason := why_not_installed(provider))]
    if len(installed) == len(PROVIDERS):
        return f"{'; '.join(installed)} ({install_line('trt')})"
    return why_no_onnx()


def open_engine(
    name: str,
    model: Emsr,
    *,
    shapes: Shapes | None = None,
    precision: str | None = None,
    device: str = "auto",
    provider: str = "auto",
    truth: bool = True,
    say: Say = lambda line: None,
) -> tuple[Engine, dict[str, Any] | None]:
    """Return an engine that runs ``model``, and the result of its truth test, as JSON values.

    Args:
        name: one of ``ENGINES``; see ``check_engine`` for what each needs.
        model: the network; torch runs it where it is.
        shapes: the batches that TensorRT is built for, which it needs; the others take any.
        precision: "fp32", "fp16" or "bf16"; the engine's own if None.
        device: "auto", "cpu", "cuda" or "cuda:N".
        provider: "auto", "tensorrt" or "tensorrt-rtx".
        truth: whether to refuse an engine that fails its truth test. PyTorch is tested in bf16 on a CPU only.
        say: called with each line about the build and the truth test.

    Raises:
        UsageError, BackendError: as ``check_engine``; or the engine could not be built, or failed its truth test.
    """
    precision = precision or PRECISIONS.get(name)
    check_engine(name, precision, device)
    assert precision is not None  # for the type checker: check_engine knows the names
    engine: Inspected
    if name == "torch":
        if slow := why_slow(next(model.parameters()).device):
            say(f"note    {slow}")
        own = TorchEngine(model, precision)
        return own, judged(own, model, None, refuse=truth, say=say) if own.needs_truth_test else None
    if name == "onnx":
        entry, onnx = _onnx(model, precision, None, say)
        engine = OnnxRuntimeEngine(onnx, scale=model.config.scale, precision=precision, device=device)
    else:
        if shapes is None:
            raise ValueError(f"engine {name} is built for the shapes of its batches: give shapes")
        entry, engine = _tensorrt(model, precision, shapes, choose_device(device), provider, say)
    return engine, judged(engine, model, entry, refuse=truth, say=say)


def judged(engine: Inspected, model: Emsr, entry: cache.Entry | None, *, refuse: bool, say: Say) -> dict[str, Any]:
    """Return the truth test's result for ``engine``: from ``entry`` if it passed before, else it is tested now.

    Without an entry in the cache it is tested each time.

    Raises:
        BackendError: it fails, and ``truth`` is set.
    """
    # a CPU's kernels are its own: a cache may be shared by several machines
    judged_here = engine.name if engine.device != "cpu" else f"{engine.name} on {_processor()}"
    known = entry.facts.get("truth", {}).get(judged_here) if entry else None
    if known and known["passed"]:
        say(f"truth   passed on {known['when']}: at most {known['largest']:.1e} from PyTorch float32")
        return known
    if not refuse:
        say("truth   not tested: nobody knows whether this engine computes what it should")
        return {"passed": False, "reason": "not tested (`truth_test=False`)"}
    result = truth_test(engine, model, engine.layers())
    say(f"truth   {result}")
    if entry:
        entry.facts.setdefault("truth", {})[judged_here] = result.as_json()
        try:
            entry.write()
        except OSError as error:
            # a cache that the superuser fills for all
            say(f"cache   the truth test's result is not kept: {entry.path} cannot be written ({error.strerror})")
    if not result.passed:
        raise BackendError(
            f"{engine.name} failed its truth test: {result.reason}; use `engine=torch`, "
            "or `truth_test=False` to use it all the same"
        )
    return result.as_json()


def _processor() -> str:
    """Return the processor's name, as Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _onnx(model: Emsr, precision: str, shapes: Shapes | None, say: Say) -> tuple[cache.Entry, bytes]:
    def make() -> tuple[bytes, dict[str, Any]]:
        say(f"build   ONNX graph of {model.card.name}, {precision}: some 10 s")
        return to_onnx(model, precision, shapes), {}

    key = {
        **_common_key(model, precision, shapes),
        "made_by": {name: importlib.metadata.version(name) for name in ("torch", "onnx", "onnxscript")},
        "exporter": _exporter_hash(),
    }
    return cache.fetch("onnx", key, make, say=say)


def _tensorrt(
    model: Emsr, precision: str, shapes: Shapes, device: torch.device, provider: str, say: Say
) -> tuple[cache.Entry, Inspected]:
    gpu = gpu_identity(device)
    with torch.cuda.device(device):
        found = load_provider(provider, (gpu["capability"][0], gpu["capability"][1]))
        _, onnx = _onnx(model, precision, shapes, say)
        builder = {"provider": found.name, "provider_version": found.version, **gpu}
        key = {**_common_key(model, precision, shapes), **builder, "graph": hashlib.sha256(onnx).hexdigest()}
        timing_path = cache.timing_cache(builder)

        def make() -> tuple[bytes, dict[str, Any]]:
            expected = _expected_seconds(key)
            usual = f"the last one like it took {expected:.0f} s" if expected else "no earlier one to tell how long"
            say(f"build   {found.name} {found.version} engine, {precision}, {shapes} px, for {gpu['gpu']}; {usual}")
            timing = cache.kept(timing_path, say)
            built = build(found, onnx, shapes, timing=timing, expected_s=expected, say=say)
            if built.timing:
                cache.keep(timing_path, built.timing)
            return built.engine, {"network_layers": built.layers}

        def load(refused: str | None = None) -> tuple[cache.Entry, TensorRTEngine]:
            entry, serialized = cache.fetch("engine", key, make, say=say, refused=refused)
            kept = cache.kept(entry.beside(".runtime"), say) if found.is_rtx else b""
            scale = model.config.scale
            engine = TensorRTEngine(
                found, serialized, scale=scale, precision=precision, shapes=shapes, device=device, runtime_cache=kept
            )
            return entry, engine

        try:
            entry, engine = load()
        except RefusedError as error:
            # whole, and for this machine by its key: the runtime knows better
            entry, engine = load(refused=str(error))
        if found.is_rtx and not cache.kept(entry.beside(".runtime")):
            engine.warm_up()
            cache.keep(entry.beside(".runtime"), engine.runtime_cache())
    return entry, engine


def _expected_seconds(key: dict[str, Any]) -> float | None:
    """Return how long the last build by this builder for this GPU took, in the same precision if there is one."""
    same = ("provider", "provider_version", "gpu")
    like = [e for e in cache.entries() if e.kind == "engine" and all(e.key.get(name) == key[name] for name in same)]
    closer = [entry for entry in like if entry.key.get("precision") == key["precision"]]
    return max(closer or like, key=lambda entry: entry.created).build_s if like else None


def _common_key(model: Emsr, precision: str, shapes: Shapes | None) -> dict[str, Any]:
    return {
        "emsr_fast": __version__,
        "model": model.card.name,
        "weights": weights_hash(model),
        "precision": precision,
        "shapes": shapes.as_json() if shapes else "any",
    }


def weights_hash(model: Emsr) -> str:
    """Return the SHA-256 of a network's architecture, card and parameters."""
    found = hashlib.sha256(repr(sorted(asdict(model.config).items())).encode())
    found.update(model.card.model_dump_json().encode())
    for name, tensor in sorted(model.state_dict().items()):
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        found.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    return found.hexdigest()


@functools.cache
def _exporter_hash() -> str:
    """Return the SHA-256 of the sources that make a graph: after a change there, graphs are made again."""
    modules = (graph, onnx_model, blocks, network, atrous, conv3x3, edge_gate, window_attention)
    sources = "".join(inspect.getsource(module) for module in modules)
    return hashlib.sha256(sources.encode()).hexdigest()
