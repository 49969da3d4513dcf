"""The errors of this package that users can mend; each has its exit code."""

from __future__ import annotations

from pathlib import Path


class EmsrError(Exception):
    """Base of the package's own errors: one line that says what was wrong, the value seen, what to do."""

    exit_code = 1


class UsageError(EmsrError, ValueError):
    """The arguments contradict each other or the data."""

    exit_code = 2


class VolumeError(EmsrError):
    """A volume cannot be read or written."""

    exit_code = 3


class PartialError(EmsrError):
    """A part could not be done, or is missing; the rest is correct."""

    exit_code = 4


class CheckpointError(EmsrError):
    """A model file is not one this package can load."""

    exit_code = 3


class BackendError(EmsrError, RuntimeError):
    """The backend, engine or device asked for cannot run here."""

    exit_code = 5


class Interrupted(BaseException):
    """A signal asked the command to stop; no ``except Exception`` must swallow it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        self.kept: Path | None = None  # where the work done is, if the same command goes on with it
