"""A Python of its own for Triton, which reads TRITON_INTERPRET when it is imported."""

import os
import subprocess
import sys
from pathlib import Path


def in_python(code: str, path: Path, *arguments: str, interpret: bool) -> str:
    """Run ``code`` with ``path`` and more as arguments, and return what it prints; its cache lies beside ``path``."""
    settings = {"TRITON_INTERPRET": str(int(interpret)), "TRITON_CACHE_DIR": str(path.parent / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), *arguments],
        env=os.environ | settings | {"TRITON_DEFAULT_FP_FUSION": "1"},
        # outside the repository, whose emsr_fast/ would hide the installed package
        cwd=path.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
