"""Sweeps of which ``make test`` runs a part, and ``make test-all`` all."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def quick_of(cases: Iterable[Any], quick: Collection[Any]) -> list[Any]:
    """Return ``cases`` for ``parametrize``: those that are not among ``quick`` are marked exhaustive."""
    cases = list(cases)
    missing = [case for case in quick if case not in cases]
    if missing:
        raise ValueError(f"no such cases: {missing}")
    return [case if case in quick else pytest.param(case, marks=pytest.mark.exhaustive) for case in cases]
