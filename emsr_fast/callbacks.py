"""What long work calls while it runs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

# given each line about what is done
Say = Callable[[str], None]
# given the LR pixels to do, a context whose value is called with the LR pixels done
Progress = Callable[[int], AbstractContextManager[Callable[[int], None]]]
