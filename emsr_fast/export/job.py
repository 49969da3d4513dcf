"""What ``emsr-fast export`` does, as a function: a file for other programs, its model card with it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from emsr_fast import __version__
from emsr_fast.callbacks import Say
from emsr_fast.convert.onnx_model import check_against_pytorch, check_precision, smallest_side, to_onnx, why_no_onnx
from emsr_fast.convert.shapes import Shapes, parse_size
from emsr_fast.convert.tensorrt_builder import Build, Provider, build, load_provider
from emsr_fast.engine.factory import PRECISIONS, weights_hash
from emsr_fast.engine.tensorrt_engine import TensorRTEngine
from emsr_fast.engine.truth import Truth, truth_test
from emsr_fast.errors import BackendError, UsageError
from emsr_fast.export.output import checked_names
from emsr_fast.io.destination import system_errors
from emsr_fast.model.config import check_window_fit
from emsr_fast.model.network import Emsr
from emsr_fast.model.zoo import DEFAULT_MODEL, load_model, model_path
from emsr_fast.publish import Check, write_file

FORMATS = {"onnx": "onnx", "trt": "trt"}  # format: the engine that it is for
_TILE = (320, 320)  # what infer's tiles read: 256 px and 32 px around them
_LARGEST_SIDE = 8192  # px of ONNX models with a fixed batch and free sizes


def export(
    output: str | Path,
    *,
    model: str | Path | None = None,
    format: str = "onnx",
    precision: str | None = None,
    window_fit: str | None = None,
    least: str | None = None,
    best: str | None = None,
    most: str | None = None,
    batch: int | None = None,
    provider: str = "auto",
    truth: bool = True,
    overwrite: bool = False,
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Write a network as ONNX or as a TensorRT engine; return what was written, as JSON values.

    The ONNX model is compared with PyTorch on real tiles of several shapes first. An engine gets its description,
    card included, beside it (FILE.json); where a GPU is, its truth test must pass.

    Args:
        output: the file; appears only when complete and checked.
        model: name of a shipped model or path of a model file; the default model if None.
        format: "onnx" or "trt".
        precision: "fp32", "fp16" or "bf16"; fp32 for ONNX and fp16 for TensorRT if None.
        window_fit: "pad" or "resize" instead of the model's own.
        least, best, most: "HxW" in LR pixels; one alone is the only size. ONNX takes any if none is given, TensorRT
            the tiles of ``emsr-fast infer``, 320x320.
        batch: tiles at a time; any for ONNX without sizes, 1 otherwise.
        provider: "auto", "tensorrt" or "tensorrt-rtx".
        truth: whether an engine that fails its truth test is refused.
        overwrite: whether an earlier export is replaced; a file of another kind never is.
        say: called with each line about what is done.

    Raises:
        UsageError: the arguments contradict each other.
        VolumeError: the output is there already, or its folder is not or cannot be written.
        CheckpointError: the model file is not one.
        BackendError: a package is missing, the check or the truth test failed, or the builder refused.
    """
    if format not in FORMATS:
        raise UsageError(f"`format` is {format!r}; give {', '.join(FORMATS)}")
    precision = precision or PRECISIONS[FORMATS[format]]
    check_precision(precision)
    check_window_fit(window_fit)
    if reason := why_no_onnx():
        raise BackendError(f"nothing can be exported: {reason}")
    path = Path(output)
    network_file = model_path(DEFAULT_MODEL if model is None else model)
    checks = checked_names(path, format, overwrite=overwrite, model=network_file)
    found = load_provider(provider, _capability()) if format == "trt" else None
    network = load_model(network_file, device="cpu", window_fit=window_fit)
    shapes = _shapes(least, best, most, batch, any_size=format == "onnx", smallest=smallest_side(network))
    say(f"model   {network.card.name}, x{network.config.scale}, window_fit {network.config.window_fit}")
    say(f"graph   {precision}, {shapes or 'any size'}: some 10 s")
    onnx = to_onnx(network, precision, shapes)
    for line in check_against_pytorch(onnx, network, precision, shapes):
        say(f"checked {line}")
    written: dict[str, Any] = {
        "output": str(path),
        "format": format,
        "model": network.card.name,
        "precision": precision,
    }
    written["shapes"] = shapes.as_json() if shapes else "any"
    if found is None or shapes is None:
        _write(checks, onnx)
    else:
        began = time.monotonic()
        made = build(found, onnx, shapes, say=say)
        say(f"build   {found.name} {found.version}: {time.monotonic() - began:.1f} s, {len(made.engine) / 1e6:.1f} MB")
        result = _judged(found, made, network, precision, shapes, refuse=truth, say=say)
        written |= {"provider": f"{found.name} {found.version}", "network_layers": made.layers, "truth_test": result}
        card = network.card.model_copy(update={"architecture": vars(network.config)}).model_dump()
        description = {"emsr_fast": __version__, "weights": weights_hash(network), **written, "card": card}
        _write(checks, json.dumps(description, indent=1).encode(), made.engine)
    return {**written, "bytes": path.stat().st_size}


def _write(checks: Sequence[tuple[Path, Check]], *contents: bytes) -> None:
    for (final, check), content in zip(checks, contents, strict=True):
        with system_errors(final):
            write_file(final, content, check)


def _capability() -> tuple[int, int] | None:
    return torch.cuda.get_device_capability() if torch.cuda.is_available() else None


def _shapes(
    least: str | None, best: str | None, most: str | None, batch: int | None, *, any_size: bool, smallest: int
) -> Shapes | None:
    """Return the shapes that the options mean, None for any."""
    given = [parse_size(text, name) for text, name in ((least, "`least`"), (best, "`best`"), (most, "`most`")) if text]
    if not given and any_size:
        if batch is None:
            return None
        return Shapes((batch, smallest, smallest), (batch, *_TILE), (batch, _LARGEST_SIDE, _LARGEST_SIDE))
    low = given[0] if given else _TILE
    high = given[-1] if given else _TILE
    middle = parse_size(best, "`best`") if best else high
    rows = batch or 1
    return Shapes((rows, *low), (rows, *middle), (rows, *high))


def _judged(
    provider: Provider, made: Build, network: Emsr, precision: str, shapes: Shapes, *, refuse: bool, say: Say
) -> dict[str, Any]:
    """Return the truth test's result of an engine where there is a GPU, and that there is none elsewhere."""
    if not torch.cuda.is_available():
        say("truth   not tested: there is no GPU here; emsr-fast infer tests the engines that it builds")
        return {"passed": False, "reason": "not tested: built on a machine without a GPU"}
    scale, device = network.config.scale, torch.device("cuda")
    engine = TensorRTEngine(provider, made.engine, scale=scale, precision=precision, shapes=shapes, device=device)
    result: Truth = truth_test(engine, network, engine.layers())
    say(f"truth   {result}")
    if refuse and not result.passed:
        raise BackendError(f"{engine.name} failed its truth test: {result.reason}; nothing was written")
    return result.as_json()
