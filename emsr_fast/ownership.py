"""Who else could have written a file: content of caches is run, so only our own is trusted."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from pathlib import Path


def why_not_ours(found: os.stat_result) -> str | None:
    """Return who else could have written a file or folder; None if only this user and the superuser could."""
    if found.st_uid not in (0, os.geteuid()):
        return f"it belongs to {_user(found.st_uid)}"
    if found.st_mode & stat.S_IWOTH or (found.st_mode & stat.S_IWGRP and not _is_own_group(found.st_gid)):
        return f"others can write to it (mode {stat.S_IMODE(found.st_mode):o})"
    return None


def why_not_our_folder(folder: Path) -> str | None:
    """Return who else could write in ``folder``; None if nobody could, or if it does not exist or cannot be read."""
    try:
        return why_not_ours(folder.stat())
    except OSError:
        return None


def close_to_others(path: Path) -> None:
    """Let only the owner write: a umask of 002 lets the group write, too."""
    path.chmod(stat.S_IMODE(path.stat().st_mode) & ~(stat.S_IWGRP | stat.S_IWOTH))


def _is_own_group(number: int) -> bool:
    """Return whether a group is the one that many systems make for each user, with its name and nobody else in it."""
    try:
        group, user = grp.getgrgid(number), pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return number == user.pw_gid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}


def _user(number: int) -> str:
    try:
        return f"{pwd.getpwuid(number).pw_name} (user {number})"
    except KeyError:
        return f"user {number}"
