"""Ends its own process by SIGKILL at one step on the file system, counted from ``arm``."""

import os
import signal

_RENAMES = ("rename", "replace")
_OTHERS = ("fsync", "unlink", "remove", "rmdir")


def arm(number, *, renames_only=False):
    """Kill this process before step ``number`` from now, the first being 1; or right after rename ``number``."""
    from emsr_fast import renaming

    left = [number]

    def counted(step):
        def call(*args, **kwargs):
            left[0] -= 1
            if left[0] == 0 and not renames_only:
                os.kill(os.getpid(), signal.SIGKILL)
            result = step(*args, **kwargs)
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    for name in _RENAMES if renames_only else _RENAMES + _OTHERS:
        setattr(os, name, counted(getattr(os, name)))
    renaming._renameat2 = counted(renaming._renameat2)
