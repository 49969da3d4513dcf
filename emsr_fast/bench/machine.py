"""The machine and versions that a timing depends on; no timing is published without them."""

from __future__ import annotations

import contextlib
import platform
import resource
import subprocess
from pathlib import Path

import torch

import emsr_fast
from emsr_fast import _backends


def describe(device: torch.device | str = "cpu") -> dict[str, str | int]:
    """Return what a timing depends on: processor, device, kernels, threads, versions, commit."""
    place = torch.device(device)
    facts: dict[str, str | int] = {
        "processor": processor(),
        "cores": torch.multiprocessing.cpu_count(),
        "threads": torch.get_num_threads(),
        "kernels": _backends.kernels_on(place),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "emsr_fast": emsr_fast.__version__,
        "commit": commit(),
    }
    if place.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(place)
    return facts


def processor() -> str:
    """Return the processor's name from the kernel, else from Python."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def commit() -> str:
    """Return the commit of the running sources, with "+" if they were changed; "installed" outside a clone."""
    root = Path(emsr_fast.__file__).parents[1]
    if not (root / ".git").exists():
        return "installed"
    git = ["git", "-C", str(root)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "emsr_fast", "csrc", "kernels"], check=False)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+" if changed.returncode else "")


def forget_peak_memory() -> None:
    """Reset ``peak_memory_mb``, if the kernel can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb() -> float:
    """Return the most memory this process has held, MB (1e6 bytes), since it began or ``forget_peak_memory``."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
