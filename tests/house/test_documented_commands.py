"""Every command in README.md and docs/ is run as it is written, on the example stack; the rest is parsed at least.

A document's lines run in order in a folder that holds what a clone has after ``make demo``.
"""

import importlib.metadata
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from emsr_fast.cli import app, main
from emsr_fast.cli.train import changes_of
from emsr_fast.train.config import TrainConfig

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = typer.main.get_command(app)

_GPU, _SECONDS = (
    "needs a GPU",
    "takes ten seconds and more; tests/convert/test_onnx.py and tests/engine/test_infer_engines.py do it",
)
# parsed, not run
NOT_RUN = {
    "emsr-fast finetune examples/data/flyem_fibsem_10nm_48x192x192.tif -o my.safetensors --minutes 3": "trains for "
    "minutes, and may find nothing to gain; tests/train does it on images where it gains",
    "emsr-fast infer demo/lr_30nm.ome.tif -o trt.ome.zarr --trt": _GPU,
    "emsr-fast export -o emsr.engine --format trt --provider tensorrt-rtx --opt 320x320": _GPU,
    "emsr-fast infer demo/lr_30nm.ome.tif -o onnx.ome.zarr --engine onnx": _SECONDS,
    "emsr-fast export -o emsr.onnx": _SECONDS,
    "emsr-fast export -o emsr_fp16.onnx --model emsr-x3 --precision fp16 --min 64x64 --opt 320x320 --max 512x512 "
    "--batch 4": _SECONDS,
    "emsr-fast infer demo/lr_30nm.ome.tif -o dask.ome.zarr --dask local:2": "starts workers; tests/infer does",
    "emsr-fast bench": "times the machine; tests/bench/test_command.py does it at a small size",
    "emsr-fast bench --peers": "times the machine, beside packages that the suite does not install",
}
# run with these options too, to take seconds
SHORTER = {
    "emsr-fast train pairs/train.yaml": "--steps=2 --validate_every=1 --checkpoint_every=1 --validation_crops=1",
    "emsr-fast infer demo/lr_30nm.ome.tif -o trusted.ome.zarr --trust": "--slices :2",
    "emsr-fast infer demo/lr_30nm.ome.tif -o out.ome.zarr --trust": "--slices :2",
    "emsr-fast infer demo/lr_30nm.ome.tif -o part.tif --slices 0:10 --model emsr-x3": "--slices 0:2",
}
# programs that other lines start, which need their own services
ELSEWHERE = {"from dask_jobqueue import SLURMCluster": "needs a SLURM cluster"}


def blocks(document):
    """Yield the language ("" for none or indented) and the lines of each block of code in a Markdown file."""
    language, lines, fenced = "", [], False
    for line in [*document.read_text().splitlines(), ""]:
        if line.startswith("```"):
            if fenced:
                yield language, lines
            language, lines, fenced = line[3:].strip(), [], not fenced
        elif fenced:
            lines.append(line)
        elif line.startswith("    "):
            lines.append(line[4:])
        elif lines:
            yield "", lines
            lines = []


def shell_lines(document):
    """Return the commands of a document, without comments, and without lines that only list options."""
    found = [line for language, lines in blocks(document) if language in ("", "sh", "bash") for line in lines]
    words = [shlex.split(line, comments=True) for line in found]
    # as it is written: joining the words again would quote "$"
    whole = [line.split(" #")[0].strip() for line in found]
    return [line for line, parts in zip(whole, words, strict=True) if parts and parts[0][0] != "-"]


def parse(arguments):
    """Parse the arguments of ``emsr-fast`` as its own parser does, without doing anything; raise what it raises."""
    command, context, rest = COMMANDS, COMMANDS.make_context("emsr-fast", list(arguments)), list(arguments)
    while hasattr(command, "commands"):
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, list(rest), parent=context)
    for change in changes_of(context.args):
        assert change.partition("=")[0].partition(".")[0] in TrainConfig.model_fields, change


def options_of(command):
    own = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return own.union(*map(options_of, getattr(command, "commands", {}).values()), {"--help"})


def check_other_program(line):
    """Check what can be checked of a line that installs, sets up or starts another program."""
    words = [word for word in shlex.split(line) if not re.match(r"[A-Z_]+=", word)]
    if words[0] == "make":
        subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, check=True, capture_output=True)
    elif words[0] == "pip":
        extras = importlib.metadata.metadata("emsr-fast").get_all("Provides-Extra")
        assert words[1] == "install"
        for wanted in re.findall(r"\[(.*)\]", words[-1]):
            assert set(wanted.split(",")) <= set(extras)
        assert words[-1].startswith(".")
        assert "-c" not in words or (ROOT / words[words.index("-c") + 1]).is_file()
    else:
        assert line == "source .venv/bin/activate", f"nothing is known of {line!r}: run it, or list it with its reason"


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """What ``make demo`` leaves."""
    folder = tmp_path_factory.mktemp("made") / "demo"
    command = [sys.executable, str(ROOT / "examples" / "demo.py"), str(folder)]
    subprocess.run(command, capture_output=True, check=True, timeout=300)
    return folder


@pytest.fixture
def clone(demo, tmp_path, monkeypatch):
    """A folder with the example data and ``demo/``, as the working folder."""
    shutil.copytree(ROOT / "examples" / "data", tmp_path / "examples" / "data")
    shutil.copytree(demo, tmp_path / "demo")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "2")
    return tmp_path


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if shell_lines(d)], ids=lambda path: path.name)
def test_every_command_runs_as_it_is_written(document, clone, capfd):
    for line in shell_lines(document):
        program, *arguments = shlex.split(os.path.expandvars(line))
        if program != "emsr-fast":
            check_other_program(line)
            continue
        parse(arguments)
        if line not in NOT_RUN:
            code = main([*arguments, *shlex.split(SHORTER.get(line, ""))])
            assert code == 0, f"{line}\n{capfd.readouterr().err}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_python_snippet_runs(document, clone):
    for language, lines in blocks(document):
        if language == "python" and lines[0] not in ELSEWHERE:
            exec("\n".join(lines), {})


def test_what_is_not_run_or_shortened_is_still_documented():
    lines = {line for document in DOCUMENTS for line in shell_lines(document)}
    assert NOT_RUN.keys() | SHORTER.keys() <= lines


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_option_in_a_sentence_exists(document):
    for span in re.findall(r"`([^`\n]+)`", document.read_text()):
        program, *rest = span.split()
        options = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", span))
        if program == "emsr-fast" and rest:
            command = COMMANDS.commands[rest[0]]
            assert options <= options_of(command), span
        elif program == "python" and rest[0].startswith("bench/"):
            # bench/measure/scripts.py has the options that several scripts share
            script = (ROOT / rest[0]).read_text() + (ROOT / "bench" / "measure" / "scripts.py").read_text()
            assert all(f'"{option}"' in script for option in options), span
        elif program not in ("torchrun", "pip"):
            assert options <= options_of(COMMANDS), span
