"""What the scripts in this folder share: common options, a fresh process per instruction set, result files."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from emsr_fast.bench import machine

ISA = "EMSR_FAST_CPU_ISA"
_PYTORCH_AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}


def add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--isa", choices=("baseline", "avx2", "avx512"), help="limit our kernels, in a fresh process")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write what was measured, and where")


def rerun_with_isa(isa: str | None) -> None:
    """Become a fresh process, unless this one is so already: kernels and PyTorch's threads look at these once.

    Our kernels use ``isa``, and idle threads sleep, as in the command (``emsr_fast.cli.main``). With AVX2, PyTorch is
    limited too; other runtimes cannot be.
    """
    wanted = {"OMP_WAIT_POLICY": "PASSIVE"} | ({ISA: isa} if isa else {}) | (_PYTORCH_AVX2 if isa == "avx2" else {})
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | wanted)


def write_json(path: Path | None, what: str, settings: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Write ``rows`` with machine and settings to ``path``, if there is one."""
    if path is None:
        return
    document = {
        "what": what,
        "machine": machine.describe(),
        "settings": settings,
        # processes that wanted a core, over the last minute and five: ours are one or as many as threads
        "load": os.getloadavg()[:2],
        "rows": rows,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")
