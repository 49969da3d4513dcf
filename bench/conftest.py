"""What every bench says beside its seconds: commit, machine, memory."""

import pytest


@pytest.fixture(autouse=True)
def where_it_was_measured(request):
    """Add commit, machine and peak memory of the process to ``extra_info``."""
    try:
        from emsr_fast.bench import machine
    except ImportError:  # compare.py also runs these files with packages that are older than that module
        yield
        return
    benchmark = request.getfixturevalue("benchmark") if "benchmark" in request.fixturenames else None
    machine.forget_peak_memory()
    yield
    if benchmark is not None:
        facts = machine.describe()
        benchmark.extra_info.update(
            commit=facts.pop("commit"), machine=facts, peak_memory_mb=round(machine.peak_memory_mb(), 1)
        )
