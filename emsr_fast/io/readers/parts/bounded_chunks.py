"""Limits the decompression of Zarr's chunks to the size of a chunk: a few bytes may become gigabytes."""

from __future__ import annotations

import bz2
import copy
import gzip
import lzma
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any

import imagecodecs
import zarr
from zarr.abc.codec import BytesBytesCodec, Codec
from zarr.codecs import ShardingCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer


def _start_of(open_stream: Callable[[BytesIO], Any]) -> Callable[..., bytes]:
    def decode(data: Any, out: int) -> bytes:
        with open_stream(BytesIO(data)) as content:
            start: bytes = content.read(out)
            return start

    return decode


# by Zarr's name; each decodes into so many bytes and fails, or stops, where there are more
_DECODERS: dict[str, Callable[..., Any]] = {
    "zstd": imagecodecs.zstd_decode,
    "blosc": imagecodecs.blosc_decode,
    "gzip": _start_of(gzip.open),
    "zlib": imagecodecs.zlib_decode,
    "bz2": _start_of(bz2.open),
    "lzma": _start_of(lzma.open),
    "lz4": lambda data, out: imagecodecs.lz4_decode(data, header=True, out=out),
}
_STOPS = ("gzip", "bz2", "lzma")  # each may be several streams one after the other
# what filters and checksums may add to a chunk; filters may store its numbers as wider ones
_MORE_BYTES, _WIDER = 2**16, 8


def bounded(array: zarr.Array) -> zarr.Array:
    """Return ``array``, open for reading, with chunks that are decompressed to at most the bytes of a chunk.

    A codec that is not known here stays as it is.
    """
    metadata = copy.copy(array.metadata)
    # its class is frozen; only this copy changes
    if array.metadata.zarr_format == 2:
        object.__setattr__(metadata, "compressor", _of_v2(array.metadata))
    else:
        object.__setattr__(metadata, "codecs", tuple(_bounded(array.metadata.codecs)))
    return zarr.Array(zarr.AsyncArray(metadata, array.store_path))


def _bounded(codecs: tuple[Codec, ...]) -> list[Codec]:
    alone = sum(isinstance(codec, BytesBytesCodec) for codec in codecs) == 1
    return [_bounded_codec(codec, 0 if alone else _MORE_BYTES) for codec in codecs]


def _bounded_codec(codec: Codec, more: int) -> Codec:
    if isinstance(codec, ShardingCodec):
        return replace(codec, codecs=tuple(_bounded(codec.codecs)))
    if isinstance(codec, BytesBytesCodec) and (name := _name(codec.to_dict())):
        return _BoundedCodec(codec, name, more)
    return codec


def _name(described: Mapping[str, Any]) -> str | None:
    """Return the name of a codec that is known here; v2 calls it id, and has no configuration of its own."""
    name = str(described.get("id") or described.get("name")).removeprefix("numcodecs.")
    settings = described.get("configuration", described)
    raw = name == "lzma" and settings.get("format") == lzma.FORMAT_RAW  # which cannot be told from its bytes
    return name if name in _DECODERS and not raw else None


def _decode(name: str, data: Any, most: int) -> bytes:
    try:
        # of one that stops, a byte more shows that there was more
        content: bytes = _DECODERS[name](data, out=most + (name in _STOPS))
    except Exception as error:  # each codec has a class of its own
        raise ValueError(f"a chunk does not decompress to the {most} bytes that a chunk has ({error})") from error
    if len(content) > most:
        raise ValueError(f"a chunk decompresses to more than the {most} bytes that a chunk has")
    return content


@dataclass(frozen=True)
class _BoundedCodec(BytesBytesCodec):
    """A codec of Zarr v3 that decodes to no more than its chunk."""

    codec: BytesBytesCodec
    name: str
    more: int
    is_fixed_size = False

    def to_dict(self) -> dict[str, Any]:
        return self.codec.to_dict()

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        return self.codec.compute_encoded_size(input_byte_length, chunk_spec)

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        most = math.prod(chunk_spec.shape) * chunk_spec.dtype.to_native_dtype().itemsize + self.more
        # in this thread: each of a pool's would keep the memory of a chunk for its next one
        content = _decode(self.name, chunk_bytes.as_buffer_like(), most)
        return chunk_spec.prototype.buffer.from_bytes(content)


def _of_v2(metadata: Any) -> Any:
    name = None if metadata.compressor is None else _name(metadata.compressor.get_config())
    if name is None:
        return metadata.compressor
    most = math.prod(metadata.chunks) * metadata.dtype.to_native_dtype().itemsize
    return _BoundedCompressor(metadata.compressor, name, most * _WIDER + _MORE_BYTES if metadata.filters else most)


class _BoundedCompressor:
    """A compressor of Zarr v2 that decodes to no more than a chunk."""

    def __init__(self, compressor: Any, name: str, most: int) -> None:
        self.codec_id, self.get_config, self.encode = compressor.codec_id, compressor.get_config, compressor.encode
        self._name, self._most = name, most

    def decode(self, data: Any, out: Any = None) -> bytes:
        return _decode(self._name, data, self._most)
