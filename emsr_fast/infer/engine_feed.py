"""Between the stream and the engine: tiles go in, and their HR pixels come back in order."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from emsr_fast.engine.base import Engine, Grey, GreyTiles, StreamingEngine
from emsr_fast.errors import BackendError
from emsr_fast.infer.tiles import Tile
from emsr_fast.io.intensity import Normalisation
from emsr_fast.trust.maps import Trust
from emsr_fast.wording import counted


class TileTooLarge(BackendError):
    """The engine ran out of memory on a tile."""


def grey_of(
    engine: Engine, normalisation: Normalisation, source: np.dtype, output: np.dtype, trust: Trust | None
) -> Grey | None:
    """Return the conversion of grey values that the engine does itself, or None where it is done here.

    If input and output have 8 bits, a device gets them as they are: a quarter of the bytes. Maps of trust need results
    that are not rounded.
    """
    if trust is not None or not (source == output == np.uint8):
        return None
    if not (isinstance(engine, StreamingEngine) and engine.converts):
        return None
    table = normalisation.to_model(np.arange(256, dtype=np.uint8))
    return Grey(table, normalisation.low, normalisation.high)


class EngineFeed:
    """Runs an engine on one tile, or on the next one while the last one comes back."""

    def __init__(self, engine: Engine, normalisation: Normalisation, grey: Grey | None, trust: Trust | None) -> None:
        self._engine, self._normalisation, self._grey, self._trust = engine, normalisation, grey, trust
        # maps of trust are made from several results of a tile, one after the other
        self._ahead = engine if isinstance(engine, StreamingEngine) and trust is None else None
        self.depth = 1 if self._ahead is None else self._ahead.depth
        self.seconds = 0.0  # that the engine was waited for

    def submit(self, image: np.ndarray, part: Tile, z: int) -> Any:
        """Send ``image``, the LR pixels that tile ``part`` of slice ``z`` reads; return a ticket for ``collect``.

        It is float32 in the model's range, or grey values where ``grey_of`` says so.
        """
        if self._ahead is None:
            return image
        wanted = None if self._grey is None else part.own_in_read(self._engine.scale)
        with self._waiting(image.shape, part, z):
            return self._ahead.submit(image[None, None], self._grey, wanted)

    def collect(self, ticket: Any, part: Tile, z: int) -> tuple[np.ndarray | GreyTiles, dict[str, np.ndarray]]:
        """Return the HR pixels that ``part`` owns, and its maps of trust.

        Raises:
            TileTooLarge: the engine ran out of memory; ``submit`` raises it, too.
            BackendError: it returned something that is no image.
        """
        if self._ahead is None:
            return self._one_by_one(ticket, part, z)
        sides = tuple(span.stop - span.start for span in part.read)
        with self._waiting(sides, part, z):
            result = self._ahead.collect(ticket)
        if isinstance(result, GreyTiles):
            _check_finite(result.not_finite, self._engine, part, z)
            return result, {}
        return self._checked(result, sides, part, z)[part.own_in_read(self._engine.scale)], {}

    def _one_by_one(self, image: np.ndarray, part: Tile, z: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        rows, cols = part.read
        # with trust more was read; the result itself must not depend on that
        result = self._run(image[: rows.stop - rows.start, : cols.stop - cols.start], part, z)
        maps: dict[str, np.ndarray] = {}
        if self._trust is not None:
            maps = self._trust.maps(
                # added noise may leave the bounds again
                lambda other: self._run(self._normalisation.bounded(other), part, z),
                image,
                result,
                part.own_in_read(),
                (z, rows.start, cols.start),
                self._engine.scale,
            )
        return result[part.own_in_read(self._engine.scale)], maps

    def _run(self, image: np.ndarray, part: Tile, z: int) -> np.ndarray:
        with self._waiting(image.shape, part, z):
            result = self._engine.run(image[None, None])
        return self._checked(result, image.shape, part, z)

    def _checked(self, result: np.ndarray, sides: tuple[int, ...], part: Tile, z: int) -> np.ndarray:
        """Return the HR image of ``result``, of a tile that read ``sides`` pixels."""
        expected = (1, 1, *(side * self._engine.scale for side in sides))
        if result.shape != expected:
            name, place = self._engine.name, _place(part, z)
            raise BackendError(f"{name} returned shape {result.shape} for {place}, expected {expected}")
        image: np.ndarray = result[0, 0]
        _check_finite(image.size - int(np.count_nonzero(np.isfinite(image))), self._engine, part, z)
        return image

    @contextmanager
    def _waiting(self, sides: tuple[int, ...], part: Tile, z: int) -> Iterator[None]:
        """Count the time of a call of the engine; name the tile if it is too large."""
        before = time.perf_counter()
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            # torch has its own class on a GPU and a plain RuntimeError on a CPU
            if isinstance(error, MemoryError) or "memory" in str(error).lower():
                raise TileTooLarge(
                    f"{self._engine.name} ran out of memory on a tile of {sides[0]}x{sides[1]} px "
                    f"({_place(part, z)}); give a smaller `tile`"
                ) from error
            raise
        finally:
            self.seconds += time.perf_counter() - before


def _place(part: Tile, z: int) -> str:
    rows, cols = part.own
    return f"slice {z}, rows {rows.start}:{rows.stop}, columns {cols.start}:{cols.stop}"


def _check_finite(bad: int, engine: Engine, part: Tile, z: int) -> None:
    if bad:
        raise BackendError(
            f"{engine.name} returned {counted(bad, 'NaN or infinite pixel')} for {_place(part, z)}; "
            "check the model file, or run it with `device=cpu`"
        )
