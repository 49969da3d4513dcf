"""``python -m emsr_fast``: the same as ``emsr-fast``."""

import os
import sys

from emsr_fast.cli import main

code = main()
if int(os.environ.get("RANK", "0")) > 0:
    # torchrun's other processes write nothing at their end, which PyTorch's threads now and then abort
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
sys.exit(code)
