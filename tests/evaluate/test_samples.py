"""The regions that evaluate measures."""

import pytest

from emsr_fast.errors import UsageError
from emsr_fast.evaluate.samples import choose_samples


def test_regions_cover_the_field_and_hold_to_their_grid():
    samples = choose_samples((500, 6000, 9000), range(20, 480), 40, 1024, 3)
    assert len(samples) == 40
    assert (samples[0].z, samples[-1].z) == (20, 479)
    for sample in samples:
        assert sample.shape == (1023, 1023)
        assert sample.rows.start % 3 == sample.cols.start % 3 == 0
        assert 0 <= sample.rows.start <= sample.rows.stop <= 6000
        assert 0 <= sample.cols.start <= sample.cols.stop <= 9000
    quarters = {(sample.rows.start < 2488, sample.cols.start < 3988) for sample in samples}
    assert len(quarters) == 4
    assert [sample.z for sample in choose_samples((9, 70, 70), range(9), 0, 64)] == list(range(9))
    assert [sample.z for sample in choose_samples((9, 70, 70), range(9), 1, 64)] == [4]
    with pytest.raises(UsageError, match="`region` is 10 px"):
        choose_samples((9, 70, 70), range(9), 1, 10)
