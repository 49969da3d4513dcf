"""Batches on their way: in order, no buffer used twice, and all collected, whatever fails."""

import pytest

from emsr_fast.engine.in_flight import in_flight


def test_batches_come_back_in_order_with_the_next_on_their_way():
    log = []

    def submit(n):
        log.append(("in", n))
        return n

    def collect(n):
        log.append(("out", n))
        return 10 * n

    assert list(in_flight(range(4), submit, collect, 2)) == [0, 10, 20, 30]
    assert log == [("in", 0), ("in", 1), ("out", 0), ("in", 2), ("out", 1), ("in", 3), ("out", 2), ("out", 3)]
    assert list(in_flight([], submit, collect, 2)) == []
    assert list(in_flight([7], submit, collect, 1)) == [70]


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_the_first_error_is_the_one_that_is_raised_and_all_are_collected(depth):
    collected = []

    def submit(n):
        if n == depth - 1:
            raise MemoryError("first")
        return n

    def collect(n):
        collected.append(n)
        raise RuntimeError("second")

    with pytest.raises(MemoryError, match="first"):
        list(in_flight(range(9), submit, collect, depth))
    assert collected == list(range(depth - 1))


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_no_buffer_is_used_twice_at_a_time(depth):
    busy = set()

    def submit(n):
        slot = n % depth
        assert slot not in busy
        busy.add(slot)
        return slot

    def collect(slot):
        busy.remove(slot)
        return slot

    assert list(in_flight(range(7), submit, collect, depth)) == [n % depth for n in range(7)]


@pytest.mark.parametrize("how", ["left", "failed"])
def test_what_was_submitted_is_collected_when_nobody_wants_it(how):
    open_ = []

    def items():
        yield from range(3)
        raise OSError("no more slices")

    def collect(n):
        open_.remove(n)
        return n

    results = in_flight(items(), lambda n: open_.append(n) or n, collect, 3)
    if how == "left":
        next(results)
        results.close()
    else:
        with pytest.raises(OSError, match="no more slices"):
            list(results)
    assert open_ == []
