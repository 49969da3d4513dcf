"""The tag tree of DigitalMicrograph files, versions 3 and 4: groups, numbers, texts, and where arrays lie."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from emsr_fast.errors import VolumeError
from emsr_fast.io.readers.parts.files import DamagedError

# tag types and the struct codes of their values; 8 is a truth value, 9 a character, 10 a byte
_CODES = {2: "h", 3: "i", 4: "H", 5: "I", 6: "f", 7: "d", 8: "?", 9: "b", 10: "B", 11: "q", 12: "Q"}
_STRUCT, _STRING, _ARRAY = 15, 18, 20
_GROUP_ENTRY, _DATA_ENTRY = 20, 21
_UINT16, _PIXELS = 4, "Data"  # texts are arrays of uint16, as pixels may be: those have this name
_MARK = b"%%%%"
# far above what microscopes write: more is a damaged file
_DEEPEST, _MOST_TAGS, _MOST_FIELDS, _LONGEST_TEXT = 64, 1_000_000, 1_000, 2**16


@dataclass(frozen=True)
class StoredArray:
    """An array in the file, not read yet."""

    offset: int  # bytes from the file's begin
    codes: str  # the struct codes of one item; more than one where items are structures
    count: int  # items


@dataclass(frozen=True)
class Group:
    """A group of tags; an unnamed entry is known by its position, counted among all entries."""

    entries: tuple[tuple[str, Tag], ...]

    def get(self, *path: str | int) -> Tag | None:
        """Return what lies at ``path``, a name or position for each level; None if nothing does."""
        found: Tag | None = self
        for step in path:
            if not isinstance(found, Group):
                return None
            found = found._entry(step)
        return found

    def group(self, *path: str | int) -> Group:
        """Return the group at ``path``, an empty one if there is none."""
        found = self.get(*path)
        return found if isinstance(found, Group) else Group(())

    def number(self, *path: str | int) -> float | None:
        """Return the number at ``path``, None if there is none."""
        found = self.get(*path)
        return found if isinstance(found, int | float) else None

    def text(self, *path: str | int) -> str:
        """Return the text at ``path``, "" if there is none; some writers fill it up with zeros."""
        found = self.get(*path)
        return found.partition("\x00")[0] if isinstance(found, str) else ""

    def _entry(self, step: str | int) -> Tag | None:
        if isinstance(step, int):
            return self.entries[step][1] if step < len(self.entries) else None
        return next((tag for name, tag in self.entries if name == step), None)


Tag = Group | StoredArray | int | float | str | tuple[int | float, ...]


@dataclass(frozen=True)
class TagFile:
    """What a file holds beside its arrays."""

    version: int  # 3 or 4
    order: str  # "<" or ">", of the values
    root: Group


def read_tags(path: Path) -> TagFile:
    """Return the tags of the DigitalMicrograph file ``path``; arrays are passed over.

    Raises:
        DamagedError: the file is cut or its tags are damaged.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return _Reader(path, file).tags()


class _Reader:
    """Reads one file from its begin; counts, lengths and names are big-endian, values are as the file says."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file
        self._size = os.fstat(file.fileno()).st_size
        self._wide, self._order, self._tags = False, "<", 0

    def tags(self) -> TagFile:
        version = self._unpack(">i")
        self._wide = version == 4
        self._length()  # of the tags, which some writers state wrongly
        self._order = "<" if self._unpack(">i") else ">"
        return TagFile(version, self._order, self._group(0))

    def _group(self, depth: int) -> Group:
        if depth > _DEEPEST:
            raise self._damaged(f"groups of tags lie more than {_DEEPEST} deep")
        self._read(2)  # whether it is sorted, and shown open
        count = self._length()
        self._tags += count
        # an entry has three bytes at least
        if count < 0 or self._tags > _MOST_TAGS or 3 * count > self._size:
            raise self._damaged(f"a group claims {count} tags")
        entries = []
        for _ in range(count):
            kind = self._unpack(">B")
            name = self._read(self._unpack(">H")).decode("latin-1")
            if kind not in (_GROUP_ENTRY, _DATA_ENTRY):
                raise self._damaged(f"an entry has type {kind}, which is neither a group nor data")
            if self._wide:
                self._read(8)  # the entry's size
            entries.append((name, self._group(depth + 1) if kind == _GROUP_ENTRY else self._data(name)))
        return Group(tuple(entries))

    def _data(self, name: str) -> Tag:
        if self._read(4) != _MARK:
            raise self._damaged("a tag's value does not begin with its mark %%%%")
        count = self._length()
        if not 1 <= count <= _MOST_FIELDS:
            raise self._damaged(f"a tag's type is described by {count} numbers")
        described = [self._length() for _ in range(count)]
        kind = described.pop(0)
        if kind == _STRING:
            return self._text(described[0] if described else 0)
        if kind == _STRUCT:
            return self._values(self._fields(described))
        if kind == _ARRAY and len(described) >= 2:
            return self._array(name, described)
        return self._values(self._code(kind))[0]

    def _array(self, name: str, described: list[int]) -> Tag:
        *item, count = described
        codes = self._item(item)
        if item == [_UINT16] and count <= _LONGEST_TEXT and name != _PIXELS:
            return self._text(count)
        stored = StoredArray(self._file.tell(), codes, count)
        size = count * struct.calcsize("=" + codes)
        if count < 0 or stored.offset + size > self._size:
            raise self._damaged(f"an array claims {size} bytes, {self._size - stored.offset} are left")
        self._file.seek(size, os.SEEK_CUR)
        return stored

    def _item(self, described: list[int]) -> str:
        """Return the codes of an item of an array: a value, a structure, or again an array, whose values are bytes."""
        kind, *more = described
        if kind == _STRUCT:
            return self._fields(more)
        if kind != _ARRAY or len(more) < 2:
            return self._code(kind)
        size = more[-1] * struct.calcsize("=" + self._item(more[:-1]))
        if not 0 <= size <= self._size:
            raise self._damaged(f"an array within an array claims {size} bytes")
        return f"{size}s"

    def _fields(self, described: list[int]) -> str:
        """Return the codes of a structure's fields.

        Args:
            described: its name's length, the number of fields, and of each its name's length and type.
        """
        kinds = described[3::2]
        if len(described) < 2 or described[1] != len(kinds):
            raise self._damaged("a structure's fields are not those it counts")
        return "".join(map(self._code, kinds))

    def _code(self, kind: int) -> str:
        if kind not in _CODES:
            raise self._damaged(f"a value has type {kind}, which the format does not know")
        return _CODES[kind]

    def _text(self, count: int) -> str:
        if not 0 <= count <= _LONGEST_TEXT:
            raise self._damaged(f"a text claims {count} characters")
        return self._read(2 * count).decode("utf-16-le" if self._order == "<" else "utf-16-be", "replace")

    def _values(self, codes: str) -> tuple[int | float, ...]:
        return struct.unpack(self._order + codes, self._read(struct.calcsize("=" + codes)))

    def _length(self) -> int:
        return self._unpack(">q" if self._wide else ">i")

    def _unpack(self, code: str) -> int:
        value: int = struct.unpack(code, self._read(struct.calcsize(code)))[0]
        return value

    def _read(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) < count:
            raise self._damaged("it ends within its tags")
        return data

    def _damaged(self, reason: str) -> VolumeError:
        return DamagedError(f"{self._path} is truncated or damaged: {reason}; copy it again")
