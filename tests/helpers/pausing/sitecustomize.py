"""Python imports this at its start where PYTHONPATH names this folder, in every process of a command."""

import os

if setting := os.environ.get("EMSR_FAST_TEST_PAUSE"):
    import json

    from pause_here import watch

    watch(**json.loads(setting))
