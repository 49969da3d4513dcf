"""Triton and the OpenGL of a viewer in one process."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys


def load_triton() -> None:
    """Import Triton, if it is installed, so that it uses its own LLVM.

    OpenGL in software (Mesa's llvmpipe, on remote desktops and machines without a GPU driver) loads another LLVM for
    the whole process. Triton, imported later by torch and the kernels, would call that one and crash.
    """
    if "triton" in sys.modules or importlib.util.find_spec("triton") is None or not hasattr(os, "RTLD_DEEPBIND"):
        return
    flags = sys.getdlopenflags()
    sys.setdlopenflags(flags | os.RTLD_DEEPBIND)
    try:
        importlib.import_module("triton._C.libtriton")
    except ImportError:
        pass  # a damaged install: whoever needs it says so
    finally:
        sys.setdlopenflags(flags)
