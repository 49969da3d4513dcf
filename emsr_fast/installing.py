"""The shell lines that install what is missing: they must work as they are printed, in any folder."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]


def install_line(extra: str = "") -> str:
    """Return the line that installs this package again, with the optional packages of ``extra`` if one is named.

    The package is on no index, so the line names the sources: the checkout that is installed, or "." where that is
    not known, such as ``pip install '.[onnx]' in a clone of emsr_fast``.
    """
    wanted = f"[{extra}]" if extra else ""
    if (_ROOT / "setup.py").is_file() and (_ROOT / "csrc").is_dir():
        # the pip of the environment that runs, which is often not the first on the path
        return f"{shlex.quote(sys.executable)} -m pip install -e {shlex.quote(f'{_ROOT}{wanted}')}"
    return f"pip install {shlex.quote(f'.{wanted}')} in a clone of emsr_fast"
