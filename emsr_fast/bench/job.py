"""What ``emsr-fast bench`` does: the speed on this machine, that of peers if asked for, and the machine's limit."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from emsr_fast import _backends
from emsr_fast.bench import machine, peers, roofline, rounds
from emsr_fast.errors import UsageError
from emsr_fast.model import Emsr, load_model
from emsr_fast.model.zoo import DEFAULT_MODEL, choose_device


def bench(
    *,
    device: str = "auto",
    model: str | Path | None = None,
    size: int = 320,
    repeats: int = 5,
    with_peers: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Time a network on this machine; return machine, table and roofline as JSON values.

    Args:
        device: "auto", "cpu", "cuda" or "cuda:N".
        model: name of a shipped model or path of a model file; the default model if None.
        size: side of the image, LR px; a tile of 256 px with its halo reads 320.
        repeats: rounds, each running every candidate once.
        with_peers: whether to time other runtimes. PyTorch's own operators always take part: they are the reference.
        say: called with each line of progress.

    Raises:
        UsageError: ``size`` or ``repeats`` is out of range.
        CheckpointError: the model file is not one.
        BackendError: the device is not there.
    """
    if not 4 <= size <= 4096:
        raise UsageError(f"`size` is {size} px; give 4 to 4096, such as 320")
    if not 1 <= repeats <= 1000:
        raise UsageError(f"`rounds` is {repeats}; give 1 to 1000, such as 5")
    place = choose_device(device)
    if slow := _backends.why_slow(place):
        say(f"note    {slow}")
    network = load_model(DEFAULT_MODEL if model is None else model, device=str(place))
    torch.manual_seed(0)
    y = torch.rand(1, 1, size, size, device=place)
    facts = machine.describe(place)
    say(f"machine {facts.get('gpu', facts['processor'])}, {facts['threads']} threads, kernels: {facts['kernels']}")
    say(f"model   {network.card.name}, {size} x {size} LR px, {repeats} rounds")
    found, missing = _rows(network, y, repeats, with_peers)
    ours = next(row for row in found if row["name"] == peers.OURS)
    return {
        "machine": facts,
        "model": network.card.name,
        "lr_pixels": size * size,
        "rounds": repeats,
        "rows": found,
        "missing": missing,
        "lr_mpx_per_s": size * size / 1e6 / ours["seconds_median"],
        "roofline": limits(network, y, ours["seconds_median"]),
        "peak_memory_mb": machine.peak_memory_mb(),
    }


def _rows(
    network: Emsr, y: torch.Tensor, repeats: int, with_peers: bool
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    exact = peers.exact(network, y)
    with tempfile.TemporaryDirectory() as folder:
        if with_peers:
            runs, missing = peers.candidates(network, y, Path(folder), torch.get_num_threads())
        else:
            runs, missing = peers.ours_and_plain(network), {}
        error = rounds.errors(runs, y, exact)
        seconds = rounds.measure(runs, y, repeats)
    return rounds.rows(seconds, error, ours=peers.OURS, plain=peers.PLAIN), missing


def limits(network: Emsr, y: torch.Tensor, seconds: float) -> dict[str, float]:
    """Return the machine's limits, measured now, and the fraction of them that ``seconds`` for ``y`` reached."""
    winograd = _backends.kernels_on(y.device).startswith("cpp") and network.config.features % 16 == 0
    work = roofline.work_of(network.config, winograd=winograd)
    flops, memory = roofline.peak_flops(y.device), roofline.bandwidth(y.device)
    least = y.numel() * max(work.kernel_flop / flops, work.kernel_bytes / memory)
    return {
        "peak_gflops": flops / 1e9,
        "bandwidth_gbs": memory / 1e9,
        "published_gflop": y.numel() * work.published_flop / 1e9,
        "kernel_gflop": y.numel() * work.kernel_flop / 1e9,
        "kernel_gb": y.numel() * work.kernel_bytes / 1e9,
        "direct_seconds": y.numel() * work.published_flop / flops,
        "least_seconds": least,
        "fraction": least / seconds,
    }


def described(done: dict[str, Any]) -> str:
    """Return the result of ``bench`` as text for a terminal."""
    roof = done["roofline"]
    hours = 1e9 / (done["lr_mpx_per_s"] * 1e6) / 3600
    lines = [
        rounds.table(done["rows"]),
        *(f"{name} took no part: {reason}" for name, reason in done["missing"].items()),
        "",
        f"speed     {done['lr_mpx_per_s']:.3g} LR Mpx/s, {hours:.2g} hours for 1,000 LR Mpx without halos",
        f"machine   {roof['peak_gflops']:.0f} GFLOP/s (matrix product), {roof['bandwidth_gbs']:.1f} GB/s (copy)",
        f"work      {roof['published_gflop']:.1f} GFLOP as published, at best {roof['direct_seconds']:.2g} s here; our "
        f"kernels: {roof['kernel_gflop']:.1f} GFLOP of products, {roof['kernel_gb']:.2g} GB",
        f"roofline  at best {roof['least_seconds']:.2g} s, reached {100 * roof['fraction']:.0f} %",
        f"memory    {done['peak_memory_mb']:.0f} MB at most, peers and float64 included",
    ]
    return "\n".join(lines)
