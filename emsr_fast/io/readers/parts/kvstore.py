"""Files and arrays of a volume on disk, s3, gs or http, through tensorstore (the extra ``cloud``)."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from emsr_fast.errors import BackendError, EmsrError, VolumeError
from emsr_fast.installing import install_line
from emsr_fast.io.readers.parts.files import AdvisedError, check_inside, check_regular, read_part
from emsr_fast.io.readers.parts.missing_chunks import LISTING_SECONDS, Files, LocalFiles, UnlistedError
from emsr_fast.reading import parse_json

# a server that does not answer must not hold a run for ever
_SECONDS = 120.0
_RETRIES = {"max_retries": 5, "initial_delay": "250ms", "max_delay": "4s"}
_LARGEST_METADATA = 2**26
_DENIED = re.compile(r"PERMISSION_DENIED|UNAUTHENTICATED|HTTP (?:response )?code:? 40[13]", re.I)
_NO_RANGES = re.compile(r"byte range .* was ignored by server|range.* not supported|HTTP response code: 416", re.I)
_UNKNOWN_CODEC = re.compile(r"is not registered")
# its text goes on with the whole page that the server sent, and with lines of its own source
_MORE = re.compile(r" \[(?:http_response_body|tensorstore_spec|source)\b")

Where = tuple[int | slice, ...]  # a part of an array
Chunks = Callable[[Where], Iterable[str]]


class Store:
    """A folder or URL with a volume in it."""

    def __init__(self, path: PurePath) -> None:
        """Open the folder or URL ``path``, without reading.

        Raises:
            BackendError: tensorstore is not installed.
            VolumeError: the address is malformed.
        """
        try:
            import tensorstore
        except ImportError as error:
            raise BackendError(
                f"{path} is read through tensorstore, which is not installed: {install_line('cloud')}"
            ) from error
        self.path = path
        self._tensorstore = tensorstore
        self._known: dict[str, Mapping[str, Any] | None] = {}
        self._above: dict[int, Store] = {}
        self.denied: list[str] = []  # metadata that the server forbids to read, which may mean that they are not there
        names = ("http_request_retries", "s3_request_retries", "gcs_request_retries")
        self._context = tensorstore.Context(dict.fromkeys(names, _RETRIES))
        with self.errors():
            self._spec = self._address()
            self._files = tensorstore.KvStore.open(self._spec, context=self._context).result(timeout=_SECONDS)

    def _address(self) -> dict[str, Any]:
        if isinstance(self.path, Path):
            return {"driver": "file", "path": f"{self.path.resolve()}/"}
        spec: dict[str, Any] = self._tensorstore.KvStore.Spec(f"{self.path}/").to_json()
        # what every client of s3 reads: a site's own object store
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        if spec["driver"] == "s3" and endpoint:
            spec |= {"endpoint": endpoint, "aws_region": os.environ.get("AWS_REGION", "us-east-1")}
        if spec["driver"] == "s3" and "AWS_ACCESS_KEY_ID" in os.environ:
            # otherwise files and services are asked too, each of which complains on stderr where it is not there
            spec["aws_credentials"] = {"type": "environment"}
        return spec

    def json(self, name: str) -> Mapping[str, Any] | None:
        """Return the JSON object in file ``name``; None if there is no such file.

        Raises:
            VolumeError: it is not a JSON object.
        """
        name = name.strip("/")
        if name not in self._known:
            self._known[name] = self._read_json(name)
        return self._known[name]

    def _read_json(self, name: str) -> Mapping[str, Any] | None:
        try:
            text = self.read(name, _LARGEST_METADATA)
        except EmsrError:
            raise
        except Exception as error:  # tensorstore has no classes of its own
            # what a bucket answers for a file that is not there, unless it lets everyone list it
            if _DENIED.search(str(error)) is None or isinstance(self.path, Path):
                raise
            self.denied.append(name)
            return None
        # some servers have a web page for whatever is not there
        if text is None or (not isinstance(self.path, Path) and text.lstrip()[:1] == b"<"):
            return None
        return self._parsed(name, text)

    def json_above(self, up: int, name: str) -> Mapping[str, Any] | None:
        """Return the JSON object in file ``name`` of the folder ``up`` levels above; None if it cannot be read."""
        folder = self.path.resolve().parents if isinstance(self.path, Path) else self.path.parents
        # a URL begins with its scheme and its host or bucket
        if up > len(folder) - (0 if isinstance(self.path, Path) else 2):
            return None
        if up not in self._above:
            self._above[up] = Store(folder[up - 1])
        try:
            with self.errors():
                return self._above[up].json(name)
        except VolumeError:
            return None  # a server may close what lies above a volume: then it says nothing

    def _parsed(self, name: str, text: bytes) -> Mapping[str, Any]:
        try:
            values = parse_json(text) if len(text) <= _LARGEST_METADATA else None
        except ValueError:
            values = None
        if not isinstance(values, dict):
            raise VolumeError(f"{self.path}: {name} is not a JSON object; check how the volume was written")
        return values

    def array(self, driver: str, place: str = "", chunks: Chunks = lambda where: (), **spec: Any) -> TensorArray:
        """Return the array at ``place`` below the folder, read with tensorstore's ``driver``.

        Args:
            chunks: the files of a part, relative to the volume's folder; on a disk they are checked before reading.
            spec: more settings of tensorstore; ``metadata`` among them replace the stored ones.
        """
        where = {**self._spec, "path": f"{self._spec['path']}{place}/" if place else self._spec["path"]}
        array = self._tensorstore.open(
            {"driver": driver, "kvstore": where, **spec},
            context=self._context,
            open=True,
            read=True,
            assume_metadata="metadata" in spec,
        ).result(timeout=_SECONDS)
        # some formats count their voxels from elsewhere than 0
        array = array[self._tensorstore.d[:].translate_to[0]]
        return TensorArray(array, lambda where: self.check(chunks(where)))

    def check(self, names: Iterable[str]) -> None:
        """Raise VolumeError where one of the files ``names`` lies outside a folder on a disk, or is no file."""
        if isinstance(self.path, Path):
            for name in names:
                check_inside(self.path, self.path / name, self.path)
                if (self.path / name).exists():
                    check_regular(self.path / name, self.path)

    def array_of(self, files: Mapping[str, bytes], driver: str, **spec: Any) -> TensorArray:
        """Return the array in ``files``, a mapping from names to contents, read with tensorstore's ``driver``."""
        alone = self._tensorstore.Context()
        memory = self._tensorstore.KvStore.open({"driver": "memory"}, context=alone).result()
        for name, content in files.items():
            memory[name] = content
        array = self._tensorstore.open(
            {"driver": driver, "kvstore": {"driver": "memory"}, **spec}, context=alone, open=True, read=True
        ).result(timeout=_SECONDS)
        return TensorArray(array[self._tensorstore.d[:].translate_to[0]])

    def folder(self, place: str) -> Files:
        """Return the files below ``place``."""
        return LocalFiles(self.path / place) if isinstance(self.path, Path) else RemoteFiles(self, place)

    def read(self, name: str, most: int | None = None) -> bytes | None:
        """Return the content of file ``name``; None if there is no such file.

        Args:
            name: relative to the folder.
            most: bytes of a file on a disk.
        """
        if isinstance(self.path, Path):
            return read_part(self.path, self.path / name, self.path, most)
        answer = self._files.read(name).result(timeout=_SECONDS)
        return bytes(answer.value) if answer.state == "value" else None

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn errors of tensorstore into VolumeError."""
        try:
            yield
        except (EmsrError, MemoryError):
            raise
        except Exception as error:  # tensorstore has no classes of its own
            raise VolumeError(f"{self.path} cannot be read: {reason_of(error)}") from error


def reason_of(error: Exception, advice: str = "check the address and how it was written") -> str:
    """Return tensorstore's message, without the server's page and places in its source code, and what to do."""
    if isinstance(error, AdvisedError):
        return f"{error}"
    if isinstance(error, TimeoutError):
        return f"no answer in time; {advice}"
    reason = _MORE.split(str(error), maxsplit=1)[0].strip()
    if _NO_RANGES.search(reason):
        return (
            "the server does not serve parts of files (HTTP ranges), which sharded volumes need; use another server, "
            "or copy the volume"
        )
    if _DENIED.search(reason):
        return f"{reason}: a file is not there, or closed to you; check the address and your credentials"
    if _UNKNOWN_CODEC.search(reason):
        return f"{reason}: tensorstore lacks that codec; write it again with zstd, or read a Zarr from a disk"
    return f"{reason}; {advice}"


class RemoteFiles:
    """A folder on a server."""

    def __init__(self, store: Store, place: str) -> None:
        self._files, self._prefix = store._files, f"{place}/" if place else ""

    def names(self) -> Iterator[str]:
        """Yield the files' names relative to the folder."""
        listing = (self._files / self._prefix).list() if self._prefix else self._files.list()
        try:
            found = listing.result(timeout=LISTING_SECONDS)
        except Exception as error:  # tensorstore has no classes of its own; http has no folders
            listing.cancel()
            raise UnlistedError from error
        yield from (bytes(name).decode(errors="replace") for name in found)

    def has(self, names: Sequence[str]) -> int:
        """Return how many of ``names`` are there."""
        # of no byte: only whether there is such a file
        asked = [self._files.read(f"{self._prefix}{name}", byte_range=slice(0, 0)) for name in names]
        try:
            return sum(answer.result(timeout=_SECONDS).state == "value" for answer in asked)
        except Exception as error:
            raise UnlistedError from error


class TensorArray:
    """A tensorstore array from 0 on, giving numpy arrays."""

    attrs: Mapping[str, Any] = {}
    metadata: Any = None

    def __init__(self, array: Any, check: Callable[[Where], None] = lambda where: None) -> None:
        """Take an array, and a check that raises VolumeError if a part must not be read."""
        self._array, self._check = array, check
        self.shape: tuple[int, ...] = tuple(array.shape)
        self.dtype = np.dtype(array.dtype.numpy_dtype).newbyteorder("=")
        stated = array.chunk_layout.read_chunk.shape or self.shape
        self.chunks = tuple(min(int(chunk or side), side) for chunk, side in zip(stated, self.shape, strict=True))

    def __getitem__(self, where: Where) -> np.ndarray:
        self._check(where)
        try:
            pixels: np.ndarray = self._array[where].read().result(timeout=_SECONDS)
        except MemoryError:
            raise
        except Exception as error:  # tensorstore has no classes of its own
            raise AdvisedError(reason_of(error, "copy or export it again")) from error
        return pixels

    def check_parts(self) -> None:
        """Read one voxel.

        Raises:
            AdvisedError: the server does not serve parts of files.
        """
        try:
            _ = self[(0,) * len(self.shape)]
        except AdvisedError as error:
            # a chunk that is not there, or damaged, is a matter of its slices
            if _NO_RANGES.search(str(error.__cause__)):
                raise
