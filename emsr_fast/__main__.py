"""``python -m emsr_fast``: the same as ``emsr-fast``."""

import sys

from emsr_fast.cli import main

sys.exit(main())
