"""Throughput of every engine on this GPU, interleaved in one run: python bench/gpu/engines.py [MODEL] > table.md

What the network costs with transfers, as `infer` pays them: NumPy tiles in and out. Also build time and memory.
"""

import sys
import time
from statistics import median

import numpy as np
import torch

from emsr_fast import load_model
from emsr_fast._backends import use_backend
from emsr_fast.convert.accuracy import in_pytorch, real_tiles
from emsr_fast.convert.shapes import Shapes
from emsr_fast.engine import TorchEngine, open_engine
from emsr_fast.errors import EmsrError

SIDE, BATCH, ROUNDS, CALLS = 320, 8, 7, 4


class Compiled:
    """torch.compile of the plain network in float16, channels last, CUDA graphs."""

    def __init__(self, model):
        self.name = "torch.compile (cuda, fp16, reference)"
        self.model = torch.compile(model.half().to(memory_format=torch.channels_last), mode="max-autotune")

    @torch.inference_mode()
    def run(self, batch):
        with use_backend("reference"):
            return self.model(torch.from_numpy(batch).cuda().half()).float().cpu().numpy()


def engines(name):
    """Yield (label, function that opens the engine)."""
    shapes = Shapes.only(1, SIDE, SIDE)
    for precision in ("fp32", "fp16", "bf16"):
        yield f"torch {precision}", lambda precision=precision: TorchEngine(load_model(name, device="cuda"), precision)
    yield "torch.compile", lambda: Compiled(load_model(name, device="cuda"))
    yield "onnx", lambda: open_engine("onnx", load_model(name, device="cpu"), shapes=shapes, device="cuda", say=say)[0]
    for provider in ("tensorrt", "tensorrt-rtx"):
        for precision in ("fp32", "fp16", "bf16"):
            yield (
                f"{provider} {precision}",
                lambda provider=provider, precision=precision: open_engine(
                    "trt",
                    load_model(name, device="cpu"),
                    shapes=shapes,
                    precision=precision,
                    provider=provider,
                    say=say,
                )[0],
            )


def say(line):
    print(line, file=sys.stderr, flush=True)


def main():
    name = sys.argv[1] if len(sys.argv) > 1 else "emsr-x3"
    tiles = np.resize(real_tiles(SIDE, SIDE), (BATCH, 1, SIDE, SIDE))
    wanted = in_pytorch(load_model(name, device="cpu"), tiles[:2])
    opened, rows = {}, {}
    for label, make in engines(name):
        torch.cuda.synchronize()
        free, start = torch.cuda.mem_get_info()[0], time.perf_counter()
        try:
            engine = make()
            error = np.abs(engine.run(tiles)[:2] - wanted).max()
        except (EmsrError, RuntimeError) as reason:
            say(f"{label}: {reason}")
            continue
        seconds, used = time.perf_counter() - start, (free - torch.cuda.mem_get_info()[0]) / 2**20
        opened[label], rows[label] = engine, (seconds, used, error)
    times = {label: [] for label in opened}
    for _ in range(ROUNDS):
        for label, engine in opened.items():
            start = time.perf_counter()
            for _ in range(CALLS):
                engine.run(tiles)
            times[label].append((time.perf_counter() - start) / CALLS)
    gpu = torch.cuda.get_device_name()
    print(f"{name}, {BATCH} tiles of {SIDE}x{SIDE} px, {gpu}, torch {torch.__version__}; median of {ROUNDS} rounds\n")
    print("| engine | LR Mpx/s | ready after | GPU memory | largest difference from PyTorch float32 |")
    print("|---|---|---|---|---|")
    for label, (seconds, used, error) in rows.items():
        rate = BATCH * SIDE * SIDE / 1e6 / median(times[label])
        print(f"| {opened[label].name} | {rate:.1f} | {seconds:.0f} s | {used:.0f} MB | {error:.1e} |")


if __name__ == "__main__":
    if not torch.cuda.is_available():
        sys.exit("no CUDA device")
    main()
