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


def add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--isa", choices=("baseline", "avx2", "avx512"), help="limit our kernels, in a fresh process")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write what was measured, and where")


def rerun_with_isa(isa: str | None) -> None:
    """Become a fresh process whose kernels use ``isa``, unless this one's do: they choose once per process."""
    if isa and os.environ.get(ISA) != isa:
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, ISA: isa})


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
