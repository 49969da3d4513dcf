"""Files that take long to make, kept between runs. The key of a file is all that it was made from.

An entry is a payload and a description, JSON with the payload's SHA-256. The description is written last: if it is
there, the payload is complete. Entries are made under a file lock: one of several processes builds, and all use the
result.

Payloads are run, and descriptions say that they were tested. So only files of this user or the superuser are used.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from emsr_fast.callbacks import Say
from emsr_fast.errors import BackendError
from emsr_fast.ownership import close_to_others, why_not_our_folder
from emsr_fast.publish import Staging
from emsr_fast.reading import parse_json, read_regular

VARIABLE = "EMSR_FAST_CACHE"
TIMING = "timing-"
_MOST_KEPT = 2**32  # bytes of a timing cache or of compiled kernels
# the folder may be one that others use too: nothing else in it is ever touched
OURS = re.compile(r"[0-9a-f]{32}\.(onnx|engine|runtime|json|lock)")
LEFT = re.compile(r"\.([0-9a-f]{32}\.(onnx|engine|runtime|json)|timing-[0-9a-f]{32})\.partial-.*")


def cache_folder() -> Path:
    """Return the folder of the cache: EMSR_FAST_CACHE, or emsr_fast in the user's cache folder (XDG)."""
    if named := os.environ.get(VARIABLE):
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "emsr_fast"


def why_refused() -> str | None:
    """Return why nothing in the cache is used: who else could have written there; None if nobody could."""
    return why_not_our_folder(cache_folder())


def own_folder() -> Path:
    """Return the folder of the cache.

    Raises:
        BackendError: somebody else could have written there.
    """
    folder = cache_folder()
    if reason := why_refused():
        raise BackendError(
            f"the cache {folder} is not used: {reason}, and code from it is run; "
            f"set {VARIABLE} to a folder that only you can write to"
        )
    return folder


@dataclass
class Entry:
    """One entry: what was made, and what is known about it."""

    payload_path: Path
    key: dict[str, Any]  # all that went into the payload
    facts: dict[str, Any]  # what was found out about it, such as the truth test
    size: int  # bytes of the payload
    sha256: str
    created: float  # seconds since 1970
    build_s: float

    @property
    def kind(self) -> str:
        """What the payload is, by its suffix: "onnx" or "engine"."""
        return self.payload_path.suffix[1:]

    @property
    def path(self) -> Path:
        """The description's file."""
        return self.payload_path.with_suffix(".json")

    @property
    def last_used(self) -> float:
        """When it was last read, seconds since 1970."""
        return self.path.stat().st_mtime

    def beside(self, suffix: str) -> Path:
        """Return the name of a file that goes with the entry, such as a runtime cache."""
        return self.payload_path.with_suffix(suffix)

    def write(self) -> None:
        """Write the description, in one step."""
        values = {name: getattr(self, name) for name in ("key", "facts", "size", "sha256", "created", "build_s")}
        keep(self.path, json.dumps({**values, "payload": self.payload_path.name}, indent=1).encode())


def fetch(
    kind: str,
    key: dict[str, Any],
    make: Callable[[], tuple[bytes, dict[str, Any]]],
    *,
    say: Say = lambda line: None,
    refused: str | None = None,
) -> tuple[Entry, bytes]:
    """Return the entry of ``key`` with its payload; made now if it is not there, or not what it should be.

    Args:
        kind: suffix of the payload's file, "onnx" or "engine".
        key: JSON values, all that the payload depends on.
        make: returns the payload and the facts about it; called with the lock held.
        say: told of waiting for another process, and of files that were not used.
        refused: why the payload that is there must not be used, such as what a runtime said to it.

    Raises:
        BackendError: the cache cannot be written, or somebody else can write to it.
    """
    folder = own_folder()
    payload_path = folder / f"{identity(key)}.{kind}"
    found, reason = (None, refused) if refused else _read(payload_path, key)
    if found:
        return found
    with _writable(folder), locked(payload_path, say):
        # another process may have made it meanwhile
        found, reason = (None, refused) if refused else _read(payload_path, key)
        if found:
            return found
        if reason:
            say(f"cache   {payload_path.name} was not used ({reason}); it is made again")
        start = time.time()
        payload, facts = make()
        sha256 = hashlib.sha256(payload).hexdigest()
        entry = Entry(payload_path, key, facts, len(payload), sha256, time.time(), round(time.time() - start, 3))
        # the old description must not stand beside the new payload; either may be no file
        for path in (entry.path, payload_path):
            path.unlink(missing_ok=True)
        keep(payload_path, payload)
        entry.write()
    return entry, payload


def identity(key: dict[str, Any]) -> str:
    """Return the file name of a key, 32 hexadecimal digits."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]


def _read(payload_path: Path, key: dict[str, Any]) -> tuple[tuple[Entry, bytes] | None, str | None]:
    """Return the entry and its payload, or None and why what is there was not used (None: nothing is there)."""
    try:
        entry = read_entry(payload_path.with_suffix(".json"))
        payload = read_regular(payload_path, entry.size, ours=True)
    except FileNotFoundError as error:
        missing_payload = str(error.filename) == str(payload_path)
        return None, "its description is there without it" if missing_payload else None
    except OSError as error:
        return None, error.strerror or str(error)
    except ValueError as error:
        return None, f"its description cannot be read: {error}"
    if entry.key != key:
        return None, "it was made for something else"
    if len(payload) != entry.size or hashlib.sha256(payload).hexdigest() != entry.sha256:
        return None, f"it is damaged: {len(payload)} bytes, not the {entry.size} that were written"
    with contextlib.suppress(OSError):  # a cache that is shared and read-only keeps no times
        os.utime(entry.path)
    return (entry, payload), None


def read_entry(path: Path) -> Entry:
    """Return the entry that the description at ``path`` is about; its payload is not read.

    Raises:
        ValueError: it is no description.
        OSError: it cannot be read, or somebody else could have written it.
    """
    try:
        values = parse_json(read_regular(path, ours=True))
        payload_path = path.with_name(values.pop("payload"))
        if payload_path.stem != path.stem or payload_path.parent != path.parent:
            raise ValueError(f"it names {payload_path.name}")
        entry = Entry(payload_path, **values)
        times = all(isinstance(value, (int, float)) for value in (entry.created, entry.build_s))
        tables = (entry.key, entry.facts, entry.facts.get("truth", {}), *entry.facts.get("truth", {}).values())
        if type(entry.size) is not int or not times or not all(isinstance(table, dict) for table in tables):
            raise ValueError("its values are of other types")
        return entry
    except (TypeError, KeyError, AttributeError, UnicodeDecodeError) as error:
        raise ValueError(f"it is not the description of an entry ({error})") from error


@contextmanager
def locked(payload_path: Path, say: Say = lambda line: None) -> Iterator[None]:
    """Hold the entry's lock; say so if it must wait. The system releases the lock of a process that dies."""
    lock = FileLock(payload_path.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"cache   another process is making {payload_path.name}; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """Make ``folder``; raise BackendError where it cannot be written."""
    try:
        if not folder.exists():
            folder.mkdir(parents=True, exist_ok=True)
            close_to_others(folder)
        yield
    except OSError as error:
        raise BackendError(
            f"the cache {folder} cannot be written ({error.strerror or error}); "
            f"set {VARIABLE} to a folder that can, with some 100 MB free"
        ) from error


def keep(path: Path, content: bytes) -> None:
    """Write a file of the cache in one step; only its owner can write to it."""
    if not path.exists():
        path.unlink(missing_ok=True)  # a broken link has the name
    with Staging(path) as part:
        part.write_bytes(content)
        close_to_others(part)


def kept(path: Path, say: Say = lambda line: None) -> bytes:
    """Return what a builder or runtime kept beside the entries; nothing, and say so, if it must not be used."""
    try:
        return read_regular(path, _MOST_KEPT, ours=True)
    except FileNotFoundError:
        return b""
    except OSError as error:
        say(f"cache   {path.name} was not used ({error.strerror}); it is made again")
        return b""


def entries() -> list[Entry]:
    """Return what is in the cache, last used first; files that are no entries, or not ours, are left out.

    Raises:
        BackendError: somebody else can write to the cache.
    """
    found = []
    for path in own_folder().glob("*.json"):
        if not OURS.fullmatch(path.name):
            continue
        with contextlib.suppress(ValueError, OSError):
            found.append(read_entry(path))
    return sorted(found, key=lambda entry: -entry.last_used)


def timing_cache(key: dict[str, Any]) -> Path:
    """Return the file of what a builder measured on one GPU, which serves every engine built there."""
    return cache_folder() / f"{TIMING}{identity(key)}"
