"""Shell lines that install missing packages: they must work as printed, in any folder."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_NAME = "emsr-fast"


def install_line(extra: str = "") -> str:
    """Return the line that installs the packages of ``extra``, or, without one, this package again.

    An extra's packages are named one by one: to install "emsr-fast[extra]" would compile the kernels again. The package
    itself is on no index, so the line names the sources: the checkout that is installed, or "." where that is not
    known, such as ``pip install '.[onnx]' in a clone of emsr_fast``.
    """
    # the pip of the environment that runs, which is often not the first on the path
    pip = [sys.executable, "-m", "pip", "install"]
    constraints = _ROOT / "constraints.txt"
    pinned = ["-c", str(constraints)] if constraints.is_file() else []
    if extra and (packages := packages_of(extra)):
        return shlex.join([*pip, *pinned, *packages])
    wanted = f"[{extra}]" if extra else ""
    if (_ROOT / "setup.py").is_file() and (_ROOT / "csrc").is_dir():
        return shlex.join([*pip, *pinned, "-e", f"{_ROOT}{wanted}"])
    return f"pip install {shlex.quote(f'.{wanted}')} in a clone of emsr_fast"


def lacking(what: str, extra: str) -> str:
    """Return the message for ``what`` cannot be done without the packages of ``extra``."""
    return f"{what} needs packages that are not installed: {install_line(extra)}"


def packages_of(extra: str) -> list[str]:
    """Return the requirements of an extra of the installed package, for pip; none if it is not installed."""
    # here, since it takes a sixth of the start of a command, and few commands need it
    import importlib.metadata

    try:
        required = importlib.metadata.requires(_NAME) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    packages: list[str] = []
    for text in required:
        requirement, _, marker = text.partition(";")
        condition, found, name = marker.rpartition("extra ==")
        if not found or name.strip(" \"'") != extra:
            continue
        if own := re.fullmatch(rf"{_NAME}\[(.*)\]", requirement.strip()):
            packages += [one for part in own[1].split(",") for one in packages_of(part)]
        else:
            condition = condition.strip().removesuffix("and").strip()
            packages.append(f"{requirement.strip()}; {condition}" if condition else requirement.strip())
    return list(dict.fromkeys(packages))


if __name__ == "__main__":
    # for the Makefile: a package a line
    print("\n".join(one for name in sys.argv[1:] for one in packages_of(name)))
