"""What the tests of replays share."""

import pytest

from emsr_fast import EmsrConfig
from emsr_fast.model import replay

SMALL = EmsrConfig(features=16, blocks=1, heads=4)


def found(model):
    """What there is of each shape: a recording, or why there is none."""
    return list(replay._recordings[model]._of_shape.values())


def computed(model, y):
    """The result, call by call, of the same classes without a recording."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMSR_FAST_CPU_REPLAY", "0")
        return model(y)
