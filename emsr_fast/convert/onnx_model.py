"""The network as an ONNX model with its card, compared with PyTorch before it is written."""

from __future__ import annotations

import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from emsr_fast import __version__
from emsr_fast.convert.accuracy import in_pytorch, real_tiles, tolerance
from emsr_fast.convert.graph import DTYPES, Graph
from emsr_fast.convert.shapes import Shapes, Size
from emsr_fast.errors import BackendError, UsageError
from emsr_fast.installing import install_line
from emsr_fast.model.card import CARD_KEY
from emsr_fast.model.network import Emsr

INPUT, OUTPUT = "lr", "hr"
# the first opset with bfloat16 convolutions is 22; every tool that reads 20 has LayerNormalization
OPSETS = {"fp32": 20, "fp16": 20, "bf16": 22}
PACKAGES = ("onnx", "onnxscript", "onnxruntime")

_CHECKED_PX = 40_000  # of LR batches compared with PyTorch: a second or two


def why_no_onnx() -> str | None:
    """Return why models cannot be exported to ONNX or run by onnxruntime here, or None if they can."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    return f"{', '.join(missing)} not installed: {install_line('onnx')}" if missing else None


def check_precision(precision: str) -> None:
    """Raise UsageError unless graphs can have this ``precision``."""
    if precision not in DTYPES:
        raise UsageError(f"`precision` is {precision!r}; give {', '.join(DTYPES)}")


def smallest_side(model: Emsr) -> int:
    """Return the least rows and columns that the network takes, in LR pixels."""
    return model.config.window if model.config.window_fit == "resize" else 1


def to_onnx(model: Emsr, precision: str = "fp32", shapes: Shapes | None = None) -> bytes:
    """Return an ONNX model of ``model``: "lr" (B, 1, H, W) to "hr" (B, 1, scale * H, scale * W), both float32.

    Args:
        model: any network; the model keeps its card and ``window_fit``.
        precision: of convolutions and matrix products, "fp32", "fp16" or "bf16"; see ``Graph``.
        shapes: the batches that it takes; sizes fixed there are fixed in the graph. By default any.

    Raises:
        BackendError: the packages that write ONNX are missing.
        UsageError: the precision is unknown, or ``shapes`` has sides too small for ``window_fit="resize"``.
    """
    check_precision(precision)
    if reason := why_no_onnx():
        raise BackendError(f"ONNX cannot be written: {reason}")
    smallest = smallest_side(model)
    if shapes is not None and min(shapes.least[1:]) < smallest:
        raise UsageError(f"shapes are {shapes}, but this model resizes to windows: give at least {smallest} px a side")
    example, dynamic = _sizes(shapes, smallest)
    batch, rows, cols = example
    with _quiet(), torch.inference_mode(False), torch.no_grad():
        program = torch.onnx.export(
            Graph(model, precision).eval(),
            (torch.zeros(batch, 1, rows, cols),),
            dynamo=True,
            opset_version=OPSETS[precision],
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes={"y": dynamic} if dynamic else None,
            verbose=False,
        )
    assert program is not None  # for the type checker: it is None only when a file is asked for
    return _with_card(program.model_proto, model, precision, shapes)


def _sizes(shapes: Shapes | None, smallest: int) -> tuple[Size, dict[int, Any]]:
    """Return a batch size to trace with, and torch's description of the axes that are not fixed."""
    names, usual = ("batch", "height", "width"), (2, 41, 53)
    example, dynamic = [], {}
    for i, name in enumerate(names):
        low, high = (smallest if i else 1, None) if shapes is None else (shapes.least[i], shapes.most[i])
        if low == high:
            example.append(low)
            continue
        # sizes like any other: 1 and multiples of the window would be taken for a rule
        example.append(usual[i] if high is None else max(low, min(usual[i], high)))
        if example[-1] == 1 and high is not None:
            example[-1] = high
        dynamic[i if i == 0 else i + 1] = torch.export.Dim(name, min=low, max=high)
    return (example[0], example[1], example[2]), dynamic


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress torch's output while it exports: it is about its internals."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _with_card(proto: Any, model: Emsr, precision: str, shapes: Shapes | None) -> bytes:
    """Return the model as bytes with the card as metadata, without the paths and line numbers of this machine."""
    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    proto.producer_name, proto.producer_version = "emsr_fast", __version__
    metadata = {
        CARD_KEY: model.card.model_copy(update={"architecture": vars(model.config)}).model_dump_json(),
        "precision": precision,
        "window_fit": model.config.window_fit,
        "scale": str(model.config.scale),
        "shapes": json.dumps(shapes.as_json()) if shapes else "any",
        "input": "grey image, (B, 1, H, W), intensities as normalisation says, usually [0, 1]; zeros lie outside it",
        "normalisation": model.card.normalisation,
    }
    for key, value in sorted(metadata.items()):
        proto.metadata_props.add(key=key, value=value)
    return proto.SerializeToString(deterministic=True)


def check_against_pytorch(onnx: bytes, model: Emsr, precision: str, shapes: Shapes | None) -> list[str]:
    """Run real tiles of several shapes through onnxruntime and PyTorch; return a line about each.

    A bfloat16 graph is checked with its numbers widened to float32: onnxruntime has no bfloat16 convolution.

    Raises:
        BackendError: a pixel or the mean differs more than rounding explains; it says where and how much.
    """
    session = cpu_session(_widened(onnx) if precision == "bf16" else onnx)
    allowed, lines = tolerance(model, precision), []
    for batch, rows, cols in _checked_sizes(shapes, smallest_side(model)):
        tiles = np.resize(real_tiles(rows, cols), (batch, 1, rows, cols))
        error = np.abs(session.run([OUTPUT], {INPUT: tiles})[0] - in_pytorch(model, tiles))
        size = f"{batch} x {rows}x{cols}"
        if wrong := allowed.why_not(error):
            raise BackendError(
                f"the ONNX model differs from PyTorch on {size} px ({wrong}): nothing was written; "
                "try other versions of onnx, onnxscript and torch, see constraints.txt"
            )
        lines.append(f"{size} px: largest difference {error.max():.1e} of {allowed.largest:.1e} allowed")
    return lines


def _checked_sizes(shapes: Shapes | None, smallest: int) -> list[Size]:
    """Return the sizes to compare: multiples of the window and odd ones, one and three at a time."""
    if shapes is None:
        shapes = Shapes((1, smallest, smallest), (1, 96, 96), (3, 512, 512))
    wanted: list[Size] = [(1, 32, 32), (3, 37, 45), (1, 7, 66), (1, 96, 97), shapes.least, shapes.best]
    inside = []
    for size in wanted:
        b, h, w = (max(low, min(x, high)) for low, x, high in zip(shapes.least, size, shapes.most, strict=True))
        # a fixed size is compared however large it is
        if (b, h, w) not in inside and (b * h * w <= _CHECKED_PX or shapes.fixed):
            inside.append((b, h, w))
    return inside or [shapes.least]


def cpu_session(onnx: bytes, **options: Any) -> Any:
    """Return an onnxruntime session on the CPU, with torch's number of threads, asleep between calls."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    # threads that spin while they wait take the core from whoever works
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings.log_severity_level = 3
    for name, value in options.items():
        setattr(settings, name, value)
    return onnxruntime.InferenceSession(onnx, settings, providers=["CPUExecutionProvider"])


def _widened(onnx: bytes) -> bytes:
    """Return a bfloat16 model with the same numbers, but float32 arithmetic."""
    from onnx import TensorProto, load_from_string, numpy_helper

    model = load_from_string(onnx)
    half, full = TensorProto.BFLOAT16, TensorProto.FLOAT
    del model.graph.value_info[:]
    attributes = [attribute for node in model.graph.node for attribute in node.attribute]
    for tensor in [*model.graph.initializer, *(a.t for a in attributes if a.HasField("t"))]:
        if tensor.data_type == half:
            values = np.asarray(numpy_helper.to_array(tensor), dtype=np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for attribute in attributes:
        if attribute.name == "to" and attribute.i == half:
            attribute.i = full
    return model.SerializeToString()
