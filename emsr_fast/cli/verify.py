"""The command that checks an output: verify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emsr_fast.cli.common import Json, print_json, typed
from emsr_fast.cli.output import put
from emsr_fast.errors import PartialError
from emsr_fast.wording import counted


def verify(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(metavar="OUTPUT", help="File that infer wrote, or is writing.")],
    as_json: Json = False,
) -> int:
    """Check that an output is complete and can be read.

    Every part must be there, decode, and be finite; if not, the exit code is 4. Flipped bits are found in formats with
    checksums: OME-Zarr and compressed HDF5, not TIFF and MRC.
    """
    from emsr_fast.infer.verify import verify as check

    found = check(path)
    if as_json:
        print_json(found)
    else:
        line = typed(context)
        for problem in found["problems"]:
            put(line.spell(problem))
        whole = "complete" if found["complete"] else counted(len(found["problems"]), "problem")
        line.say(f"{found['output']}: {found['checked']} parts checked, {whole}")
    return 0 if found["complete"] else PartialError.exit_code
