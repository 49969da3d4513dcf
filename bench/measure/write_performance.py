"""Write the tables of docs/performance.md from bench/results/*.json; what stands around them is left as it is.

python bench/measure/write_performance.py
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import commits_cpu
import python_cpu
import slice_cpu
import training_cpu
from emsr_fast import Emsr, EmsrConfig
from emsr_fast.bench import roofline, rounds
from emsr_fast.infer.plan import DEFAULT_HALO, make_plan
from emsr_fast.infer.prepare import bytes_per_px
from emsr_fast.infer.tiles import tiles_within
from emsr_fast.reference import published

ROOT = Path(__file__).resolve().parents[2]
PAGE, RESULTS = ROOT / "docs" / "performance.md", ROOT / "bench" / "results"

Document = dict[str, Any]


def page(text: str, documents: list[Document]) -> str:
    """Return ``text`` with a fresh table behind each of its table marks."""

    def table(mark: re.Match[str]) -> str:
        what = mark[2]
        found = [d for d in documents if d["what"] == what]
        if not found and what != "work":
            command = f"python bench/measure/{what}.py --json bench/results/{what}.json"
            written = f"Not measured on a quiet machine yet: `{command}`."
        else:
            written = TABLES[what](found)
        return f"{mark[1]}\n{written}\n{mark[3]}"

    return re.sub(r"(<!-- table: (\w+) -->)\n.*?(<!-- end -->)", table, text, flags=re.DOTALL)


def documents(folder: Path = RESULTS) -> list[Document]:
    """Return the results of the scripts that say what they measured, in the order of their names."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return [document for document in found if "what" in document and "machine" in document]


def _where(document: Document) -> str:
    m = document["machine"]
    busy = f", load {document['load'][0]:.1f} on {m['cores']} cores" if "load" in document else ""
    kernels = f"{m['threads']} threads, kernels {m['kernels']}"
    return f"{m['processor']}, {kernels}, torch {m['torch']}, commit {m['commit']}{busy}"


def _work(_: list[Document]) -> str:
    direct, ours = (roofline.work_of(EmsrConfig(), winograd=on) for on in (False, True))
    side = 1024
    tiles = sum((r.stop - r.start) * (c.stop - c.start) for r, c in published.tiles(side, side)) / side**2
    return "\n".join(
        [
            "| the paper's network | published | ours on a CPU |",
            "|---|---|---|",
            f"| kFLOP per LR pixel (ours: products, without transforms) | {direct.published_flop / 1e3:,.0f} | "
            f"{ours.kernel_flop / 1e3:,.0f} |",
            f"| pixels computed per pixel of a {side}x{side} slice | {tiles:.2f} | {_with_halos(side):.2f} |",
        ]
    )


def _with_halos(side: int) -> float:
    """Return how many pixels the tiles that `infer` chooses read, per pixel of a slice."""
    region = ((0, 1), (0, side), (0, side))
    paper = bytes_per_px(Emsr())
    plan = make_plan((1, side, side), region, scale=3, tile=None, halo=DEFAULT_HALO, itemsize=1, bytes_per_px=paper)
    reads = (t.read for t in tiles_within(slice(0, side), slice(0, side), plan.tile, plan.halo, (side, side)))
    return sum((rows.stop - rows.start) * (cols.stop - cols.start) for rows, cols in reads) / side**2


def _network(found: list[Document]) -> str:
    parts = []
    for document in found:
        size = document["settings"]["size"]
        parts.append(f"{size}x{size} px, {document['settings']['rounds']} rounds; {_where(document)}:\n")
        parts.append(rounds.table(document["rows"]) + "\n")
    return "\n".join(parts)


def _convolution(found: list[Document]) -> str:
    parts = []
    for document in found:
        settings = document["settings"]
        case = f"{settings['channels']} channels, {settings['size']}x{settings['size']} px, {settings['rounds']} rounds"
        parts.append(f"{case}; {_where(document)}:\n")
        parts.append(rounds.table(document["rows"]) + "\n")
    return "\n".join(parts)


def _slice(found: list[Document]) -> str:
    parts = []
    for document in found:
        size = document["settings"]["size"]
        parts.append(f"{size}x{size} px, {document['settings']['model']}; {_where(document)}:\n")
        parts.append(slice_cpu.table(document["rows"][0]) + "\n")
    return "\n".join(parts)


def _training(found: list[Document]) -> str:
    parts = []
    for document in found:
        settings = document["settings"]
        case = (
            f"{settings['model']}, crop {settings['crop']} px, batch {settings['batch']}, {settings['rounds']} rounds"
        )
        parts.append(f"{case}; {_where(document)}:\n")
        parts.append(training_cpu.table(document["rows"]) + "\n")
    return "\n".join(parts)


def _python(found: list[Document]) -> str:
    parts = []
    for document in found:
        parts.append(f"{document['settings']['rounds']} rounds; {_where(document)}:\n")
        parts.append(python_cpu.table(document["rows"]) + "\n")
    return "\n".join(parts)


def _commits(found: list[Document]) -> str:
    parts = []
    for document in found:
        settings = document["settings"]
        # the script may have run from another commit than those that it compared
        place = {**document, "machine": {**document["machine"], "commit": settings["head"]}}
        parts.append(f"{settings['rounds']} rounds; {_where(place)}:\n")
        parts.append(commits_cpu.table(document["rows"], settings) + "\n")
    return "\n".join(parts)


def _scaling(found: list[Document]) -> str:
    parts = []
    for document in found:
        parts += [
            f"{document['settings']['rounds']} rounds; {_where(document)}:\n",
            "| varied | threads | batch | side, LR px | LR Mpx/s | times the first |",
            "|---|---|---|---|---|---|",
        ]
        for row in document["rows"]:
            cells = (row["axis"], row["threads"], row["batch"], row["size"])
            parts.append(f"| {' | '.join(map(str, cells))} | {row['lr_mpx_per_s']:.3f} | {row['times_first']:.2f} |")
        parts.append("")
    return "\n".join(parts)


TABLES: dict[str, Callable[[list[Document]], str]] = {
    "work": _work,
    "network_cpu": _network,
    "convolution_cpu": _convolution,
    "slice_cpu": _slice,
    "training_cpu": _training,
    "scaling_cpu": _scaling,
    "python_cpu": _python,
    "commits_cpu": _commits,
}


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(), documents()))
