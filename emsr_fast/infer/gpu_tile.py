"""The tile that a GPU gets where the user gives none: predicted from counts, not yet from measurements."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from emsr_fast.infer.tiles import even_divisions, least_read, longest_side, pixels_read, smallest_tile

# what a multiprocessor loses in each tile, in pixels that it could have computed: the rows that its programs read twice
# and the last wave of programs that is not full. Counted for strips of 128 and of 32 columns: 200 to 1300
_LOST_PX = 768
# features that a layer reads and writes
_LIVE_MAPS = 3
# products and sums a byte of device memory, where our convolutions (half precision) or PyTorch's (float32) wait for
# neither: on an H100 56 % of 790 and of 60 TFLOP/s, at 3.0 TB/s
_BALANCE = {2: 147.0, 4: 11.0}
_BYTES_PER_FEATURE = 2.5  # of its size, moved by a layer: one in, one out, every other time a second one in


@dataclass(frozen=True)
class Gpu:
    """The properties of a CUDA device and of the network that decide the best tile."""

    l2_bytes: int
    multiprocessors: int
    features: int
    itemsize: int  # bytes of a feature: 2 or 4

    def penalty(self, read_px: np.ndarray) -> np.ndarray:
        """Return how many times longer a pixel takes in a tile of ``read_px`` than where its features are in L2.

        3x3 convolutions of 64 features in half precision take longer to compute than to move their data, so they lose
        nothing with any tile. With 32 features they lose 28 %; with 16 they take 2.6 times as long.
        """
        moved = _BYTES_PER_FEATURE * self.features * self.itemsize
        outside = max(1.0, _BALANCE[self.itemsize] * moved / (18 * self.features**2))
        resident = _LIVE_MAPS * self.features * self.itemsize * read_px <= self.l2_bytes
        return np.where(resident, 1.0, outside)


def gpu_tile(height: int, width: int, halo: int, largest_read_px: int, gpu: Gpu) -> tuple[int, int]:
    """Return rows and columns of tiles that divide (height, width) evenly in the least predicted time.

    The time of a tile grows with the pixels that it reads, halo included. It is longer if the features do not fit L2.
    Each tile also has a fixed cost on every multiprocessor.

    Args:
        largest_read_px: what a tile may read, its halo included, in LR pixels; but tiles of 64 px are always allowed.
    """
    rows, cols = (
        np.array(list(even_divisions(length, longest_side(length, least_read(across, halo), halo, largest_read_px))))
        for length, across in ((height, width), (width, height))
    )
    if not rows.size or not cols.size:
        return smallest_tile(height, width)
    read = np.outer(np.minimum(rows + 2 * halo, height), np.minimum(cols + 2 * halo, width))
    in_all = np.outer(pixels_read(height, rows, halo), pixels_read(width, cols, halo))
    tiles = np.outer(-(-height // rows), -(-width // cols))
    cost = in_all * gpu.penalty(read) + tiles * (gpu.multiprocessors * _LOST_PX)
    cost[read > largest_read_px] = np.inf
    if not np.isfinite(cost).any():
        return smallest_tile(height, width)
    # of equal ones the widest: memory is read along rows
    across, down = np.unravel_index(np.argmin(cost.T), cost.T.shape)
    return int(rows[down]), int(cols[across])
