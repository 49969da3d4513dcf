"""What this installation can run, on one screen."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform

import torch

import emsr_fast
from emsr_fast import _backends, _native
from emsr_fast.convert.tensorrt_builder import PROVIDERS, why_not_installed
from emsr_fast.engine.cache import cache_folder, why_refused
from emsr_fast.engine.factory import ENGINES, why_not_engine
from emsr_fast.errors import BackendError
from emsr_fast.io.readers.parts.extra import EXTRA, PACKAGES, why_not_read
from emsr_fast.model.zoo import available_models
from emsr_fast.ops import OPERATORS


def report() -> str:
    """Return versions, processor, GPU, and each backend, engine and extra format with yes or the reason why not."""
    sections = {"versions": _versions(), "machine": _machine(), "backends": _backend_rows(), "operators": _operators()}
    sections["engines"] = _engines()
    sections["formats"] = _formats()
    width = max(len(name) for rows in sections.values() for name in rows)
    lines = []
    for title, rows in sections.items():
        lines.append(title)
        lines += [f"  {name:<{width}}  {value}" for name, value in rows.items()]
    lines += ["models", *(f"  {name}" for name in available_models())]
    return "\n".join(lines)


def _versions() -> dict[str, str]:
    rows = {"emsr_fast": emsr_fast.__version__, "python": platform.python_version()}
    for name in ("torch", "triton", "onnx", "onnxruntime", "numpy", "tifffile", "zarr"):
        try:
            rows[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            rows[name] = "not installed"
    return rows


def _machine() -> dict[str, str]:
    reason = _native.why_no_cpu()
    rows = {
        "platform": f"{platform.system()} {platform.machine()}",
        "CPU kernels": f"no: {reason}" if reason else _cpu_kernels(),
        "threads": f"{torch.get_num_threads()} (torch.get_num_threads)",
    }
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            gpu = torch.cuda.get_device_properties(i)
            rows[f"GPU {i}"] = (
                f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, compute capability {gpu.major}.{gpu.minor}"
            )
    else:
        rows["GPU"] = "none that torch can use" if torch.version.cuda else "this torch was built without CUDA"
    return rows


def _cpu_kernels() -> str:
    l2, line = _native.cpu_caches()
    return f"{_native.cpu_isa()}, for an L2 cache of {l2 >> 10} KiB and cache lines of {line} bytes"


def _backend_rows() -> dict[str, str]:
    # without a GPU, how the kernels were built does not matter
    no_gpu = None if torch.cuda.is_available() else "it needs a GPU, and torch sees none"
    reasons = {name: no_gpu if name in ("cuda", "triton") else None for name in _backends.BACKENDS}
    rows = {name: _yes_or(reason or _backends.why_not_here(name)) for name, reason in reasons.items()}
    try:
        forced = _backends.preferred()
        rows["EMSR_FAST_BACKEND"] = ",".join(forced) if forced else "not set: the first that can run is taken"
    except BackendError as error:
        rows["EMSR_FAST_BACKEND"] = f"wrong: {error}"
    return rows


def _operators() -> dict[str, str]:
    """Return for each operator the backends that have it here, the first to be tried first."""
    rows = {}
    for name, operator in OPERATORS.items():
        here = [b for b in operator.automatic if _backends.why_not_here(b) is None]
        asked = [f"{b} on request" for b in operator.on_request if _backends.why_not_here(b) is None]
        rows[name] = ", ".join(here + asked)
    return rows


def _engines() -> dict[str, str]:
    rows = {name: _yes_or(why_not_engine(name)) for name in ENGINES}
    refused = why_refused()
    cache = f"{cache_folder()} is not used: {refused}" if refused else str(cache_folder())
    return {**rows, **{name: _yes_or(why_not_installed(name)) for name in PROVIDERS}, "cache": cache}


def _formats() -> dict[str, str]:
    """Return the formats of the extra: those that can be read in one row, and one row for each that cannot."""
    reasons = {kind: why_not_read(package) for package, (kind, _) in PACKAGES.items()}
    here = [kind for kind, reason in reasons.items() if reason is None]
    rows = {f"of [{EXTRA}]": ", ".join(here)} if here else {}
    return rows | {kind: _yes_or(reason) for kind, reason in reasons.items() if reason}


def _yes_or(reason: str | None) -> str:
    return f"no: {reason}" if reason else "yes"
