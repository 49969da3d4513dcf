"""The command that tells what works on this machine: doctor."""

from __future__ import annotations

from emsr_fast.cli.output import put


def doctor() -> None:
    """Print what can run on this machine, and why the rest cannot."""
    from emsr_fast.doctor import report

    put(*report().splitlines())
