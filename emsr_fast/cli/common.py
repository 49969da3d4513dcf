"""Shared by the commands: options that several have, and the command line as it was typed.

The rest of the package names settings as Python does, in backticks: `tile`, `overwrite=True`. ``CommandLine`` spells
them as options: --tile, --overwrite. Advice that the command has no option for is left out.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from emsr_fast.cli.output import put
from emsr_fast.errors import UsageError
from emsr_fast.io.locations import RAW_KEY

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, everything else on stderr.")]
Key = Annotated[
    str | None, typer.Option(help="Image to read from a file with several: dataset, variable, level or series number.")
]
Raw = Annotated[
    str | None,
    typer.Option(
        "--raw",
        metavar="ZxYxX:TYPE",
        help="How the pixels of a file without a header are stored: sides, slowest first, and type, such as "
        "100x2048x2048:uint16. Append be to the type for big-endian, @512 for the first byte, :30x8x8nm for the "
        "voxel size. Elsewhere: FILE:/raw=100x2048x2048:uint16.",
    ),
]
Axes = Annotated[str | None, typer.Option(help="Names of the stored axes, slowest first, such as ZYX or CZYX.")]
Channel = Annotated[
    int | None, typer.Option(min=0, metavar="N", help="Channel to read where an input has several, counted from 0.")
]
KeepDataBar = Annotated[
    bool,
    typer.Option(
        "--keep-data-bar",
        help="Read the printed strip below a microscope's image, too. Default: left out where the file states the "
        "image's height.",
    ),
]
InputVoxel = Annotated[
    str | None,
    typer.Option(
        metavar="NM|Y,X|file|ignore",
        help="Pixel size of the input in nm. The input is resampled from it to the pixel size that the model was "
        "trained on, which loses detail if that is coarser. file takes the size that the file states; ignore runs the "
        "model on the pixels as they are. Default: as ignore, but a difference above 15 % is an error.",
    ),
]
Range = Annotated[
    str | None,
    typer.Option(
        "--range",
        metavar="LO:HI|dtype",
        help="Intensity range, in grey values, that the network gets as 0 to 1. Default: the dtype's range for 8 bits, "
        "else the 0.1 and 99.9 percentiles of 16 slices across the volume.",
    ),
]
Model = Annotated[str | None, typer.Option(help="Name of a shipped model (see `emsr-fast models`) or a model file.")]
WindowFit = Annotated[
    str | None,
    typer.Option(
        help="How sides that are not a multiple of 4 are made to fit: pad or resize. Default: the model's own."
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Precision = Annotated[
    str | None,
    typer.Option(
        help="fp32 (without TF32), fp16 or bf16; a CPU has fp32, a new one bf16. Default: fp16 for trt, else fp32."
    ),
]
Provider = Annotated[str, typer.Option(help="Kind of TensorRT: auto, tensorrt or tensorrt-rtx.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace an existing output, once the new one is complete.")
]

_SETTING = re.compile(r"`([a-z_]+)(?:=([^`]+))?`")
_KEY = "FILE:/KEY"  # how every command that reads a volume takes the setting ``key``


@dataclass(frozen=True)
class Option:
    """How an option is spelt, and whether a value follows it."""

    spelt: str
    takes_value: bool


class CommandLine:
    """The words typed after ``emsr-fast``; spells settings as options of the command."""

    def __init__(self, words: Sequence[str], group: Any) -> None:
        """Take the words typed, and the group of commands that they choose from."""
        command = group
        for word in words:
            command = getattr(command, "commands", {}).get(word, command)
        self._words = list(words)
        self.options = options_of(command)
        self._takes_any = getattr(command, "context_settings", {}).get("ignore_unknown_options", False)

    def spell(self, text: str) -> str:
        """Return a message with each setting in it as an option.

        The clauses after "; " are advice. An alternative in them that names an option which the command lacks is left
        out; in what went wrong, the name alone is left.
        """
        wrong, *advice = text.split("; ")
        kept = [", or ".join(filter(self._has_all, clause.split(", or "))) for clause in advice]
        return "; ".join(_SETTING.sub(self._spelt, clause) for clause in [wrong, *kept] if clause)

    def say(self, line: str) -> None:
        """Print a line on stderr."""
        put(self.spell(line), stream=sys.stderr)

    def again(self, **changes: str | bool | None) -> str:
        """Return the command to type with some settings changed; None leaves one out."""
        names = [name for setting in changes for name in (setting, f"no_{setting}") if name in self.options]
        changed = {self.options[name].spelt: self.options[name] for name in names}
        kept: list[str] = []
        words = iter(self._words)
        for word in words:
            spelt, equals, _ = word.partition("=")
            if spelt not in changed:
                kept.append(word)
            elif changed[spelt].takes_value and not equals:
                next(words, None)
        for name, value in changes.items():
            if value is not None:
                kept += [self.options[name].spelt, *([str(value)] if self.options[name].takes_value else [])]
        return shlex.join(["emsr-fast", *kept])

    def _has_all(self, advice: str) -> bool:
        """Return whether the command has an option for each setting in ``advice``."""
        return all(
            name in self.options or f"no_{name}" in self.options or name == "key" or self._takes_any
            for name, _ in _SETTING.findall(advice)
        )

    def _spelt(self, setting: re.Match[str]) -> str:
        name, value = setting.groups()
        if value == "False" and f"no_{name}" in self.options:
            return self.options[f"no_{name}"].spelt
        if name not in self.options:
            if self._takes_any:
                return f"--{name}={value}" if value else f"--{name}"
            if name == "key":
                return f":/{value}" if value else _KEY
            return f"{name} {value}" if value else str(name)
        option = self.options[name]
        return f"{option.spelt} {value}" if value and option.takes_value else option.spelt


def options_of(command: Any) -> dict[str, Option]:
    """Return a command's options by the names that Python has for them: the parameter's, and the option's own."""
    found: dict[str, Option] = {}
    for parameter in command.params:
        for spelt in parameter.opts:
            if spelt.startswith("--"):
                option = Option(spelt, takes_value=not parameter.is_flag)
                found |= {parameter.name: option, spelt[2:].replace("-", "_"): option}
    return found


def key_of(key: str | None, raw: str | None) -> str | None:
    """Return the image to read from a file: ``key``, or what ``raw`` says of a file without a header.

    Raises:
        UsageError: both are given, or ``raw`` has another form.
    """
    if raw is None:
        return key
    if key is not None:
        raise UsageError("`key` and `raw` are given together; give `raw` alone: a file without a header has one volume")
    from emsr_fast.io.readers.raw import parse_raw

    parse_raw(raw)
    return f"{RAW_KEY}{raw}"


def typed(context: typer.Context) -> CommandLine:
    """Return the command line that ``main`` was given."""
    line = context.obj
    assert isinstance(line, CommandLine)
    return line


def print_done(done: Mapping[str, Any], *, as_json: bool) -> None:
    """Print what a command did on stdout: all of it as JSON, or the path of its output."""
    if as_json:
        print_json(done)
    else:
        put(str(done["output"]))


def print_json(values: Mapping[str, Any]) -> None:
    """Print the one JSON object of a command on stdout."""
    put(json.dumps(values, default=str), most=None)
