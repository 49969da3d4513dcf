"""Two renames in one step that Linux has and Python does not."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

_NO_REPLACE, _EXCHANGE, _HERE = 1, 2, -100  # two flags of renameat2, and AT_FDCWD


def rename_to_free(source: Path, target: Path) -> bool:
    """Rename ``source`` to ``target`` unless that name is taken; return False where the system cannot do this.

    Raises:
        FileExistsError: the name is taken.
        OSError: the rename failed.
    """
    return _renameat2(source, target, _NO_REPLACE)


def exchange(one: Path, other: Path) -> bool:
    """Give each of two files or folders the name of the other; return False where the system cannot do this.

    Raises:
        OSError: the exchange failed; both have their own names.
    """
    return _renameat2(one, other, _EXCHANGE)


def _renameat2(source: Path, target: Path, flag: int) -> bool:
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    if call(_HERE, os.fsencode(source), _HERE, os.fsencode(target), flag) == 0:
        return True
    number = ctypes.get_errno()
    # EPERM: a sandbox that does not know the call; the plain rename says whether it is more than that
    if number in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM):
        return False
    raise OSError(number, os.strerror(number), os.fspath(source), None, os.fspath(target))
