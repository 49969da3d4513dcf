"""A run as one value: inputs, settings, plan and output. It is written once, to OUT.partial/journal.json.

Another process or machine that continues the run reads all of it from there. The file is read strictly, and has a
checksum: with one number changed, the new pixels would not fit those that are done.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any

from emsr_fast.errors import VolumeError
from emsr_fast.infer.fingerprint import InputFingerprint, ModelFingerprint, differences
from emsr_fast.infer.parts import JOURNAL, to_start_anew, to_throw_away
from emsr_fast.infer.plan import Plan
from emsr_fast.infer.strict_json import read_as
from emsr_fast.infer.tiles import ALIGNMENT
from emsr_fast.io.intensity import Normalisation
from emsr_fast.io.selection import Span
from emsr_fast.io.volume import TargetSpec
from emsr_fast.publish import write_durably
from emsr_fast.reading import parse_json, read_regular
from emsr_fast.trust.maps import Trust
from emsr_fast.wording import listed

FORMAT = 6  # of the file; to be raised whenever a part of ``Run``, or of what lies beside the file, changes
NO_LIMIT = "default"  # where no memory is given
_MOST_NAMED = 3  # differences in a message


@dataclass(frozen=True)
class EngineOptions:
    """The options of ``engine.open_engine``, which runs the network."""

    engine: str = "torch"
    precision: str | None = None
    provider: str = "auto"
    truth_test: bool = True
    device: str = "auto"


@dataclass(frozen=True)
class RunInputs:
    """Where a worker finds volume and model; see ``Request``. The identity has the other options to open them."""

    path: str  # absolute, or a URL
    model: str | None  # a name or an absolute path; None: the default model
    window_fit: str | None


@dataclass(frozen=True)
class RunSettings:
    """The options that decide pixels, as they were asked for."""

    key: str | None
    axes: str | None
    channel: int | None
    keep_data_bar: bool
    input_voxel: str | None
    tile: int | str
    halo: int
    region: tuple[Span, Span, Span]  # slices, rows, columns
    range: str
    engine: str
    precision: str
    max_memory: str  # or NO_LIMIT
    ome_zarr: str
    trust: bool


@dataclass(frozen=True)
class Identity:
    """What must be the same for a run to be continued."""

    version: str  # of emsr_fast
    model: ModelFingerprint
    input: InputFingerprint
    settings: RunSettings

    @property
    def key(self) -> str:
        """A hash that only this run has."""
        return _sha256(asdict(self))


@dataclass(frozen=True)
class Publication:
    """The output that is about to get its final name. A kill may come between that and the end of the work folder."""

    ready: str | None  # path in the work folder
    identities: tuple[str, ...]  # of all files and folders that were ever about to be given their names
    bounded_pixels: int  # of the whole output


@dataclass(frozen=True)
class Run:
    """All that workers and resumed runs must agree on."""

    identity: Identity
    inputs: RunInputs
    plan: Plan
    output: TargetSpec
    normalisation: Normalisation  # measured once: a slice that is mended since then must not change it
    trust: Trust | None  # None: no maps of trust are made
    engine_options: EngineOptions
    engine: str  # name of the engine that it was begun on
    truth_test: dict[str, Any] | None  # that engine's result, JSON values
    pyramid: bool  # whether that volume has levels above the full resolution; it is the output itself
    publication: Publication | None = None

    @property
    def ome_zarr(self) -> str:
        """The version of OME-Zarr of the volume in the work folder."""
        return self.identity.settings.ome_zarr

    @property
    def map_names(self) -> tuple[str, ...]:
        """The maps of trust that are made."""
        return () if self.trust is None else self.trust.names

    @property
    def checksum(self) -> str:
        """A hash of the whole run."""
        return _sha256(self._as_json())

    def save(self, folder: Path, unfinished: Path) -> None:
        """Write the run into the work folder ``folder``.

        Args:
            unfinished: an existing folder of the same file system, for files being written.
        """
        content = {"format": FORMAT, "sha256": self.checksum, "run": self._as_json()}
        write_durably(folder / JOURNAL, (json.dumps(content, indent=1) + "\n").encode(), unfinished)

    def _as_json(self) -> Any:
        return asdict(self) | {"output": asdict(self.output) | {"dtype": self.output.dtype.name}}

    @classmethod
    def load(cls, folder: Path) -> Run:
        """Return the run of the work folder ``folder``.

        Raises:
            VolumeError: the file cannot be read, is damaged, was changed, or is of another format.
        """
        path = folder / JOURNAL
        try:
            return _parsed(read_regular(path))
        except OSError as error:
            what = f"cannot be read: {error.strerror or error}"
        except ValueError as error:
            what = str(error)
        raise VolumeError(f"{path} {what}; {to_start_anew(folder)}")

    def check_same(self, identity: Identity, folder: Path) -> None:
        """Raise VolumeError, which says what differs, unless this run in ``folder`` is of the same ``identity``."""
        # checksums of slices say less than a setting or a shape
        different = sorted(
            differences(asdict(self.identity), asdict(identity)), key=lambda one: "sampled_slices" in one
        )
        if different:
            raise VolumeError(
                f"{folder} was begun with something else: {listed(different, _MOST_NAMED, '; ')}; give the same "
                f"again, choose another output, or {to_throw_away(folder)}"
            )


def _parsed(data: bytes) -> Run:
    """Return the run in the bytes of a file; raise ValueError with a text that continues "FILE ..."."""
    try:
        content = parse_json(data, each_once=True)
    except ValueError as error:
        raise ValueError(f"is not JSON: {error}") from error
    if not isinstance(content, dict) or "format" not in content:
        raise ValueError("is not the journal of a run: it has no format number")
    # 6.0 and true are equal to whole numbers
    if content["format"] != FORMAT or type(content["format"]) is not int:
        raise ValueError(f"has format {content['format']!r:.20}, and this version of emsr-fast reads format {FORMAT}")
    for part in ("sha256", "run"):
        if part not in content:
            raise ValueError(f"lacks its part {part!r}")
    if content["sha256"] != _sha256(content["run"]):
        raise ValueError("was edited or damaged: its checksum does not match")
    try:
        run: Run = read_as(Run, content["run"], "run")
        _check_values(run)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"is not understood: {error}") from error
    return run


def _check_values(run: Run) -> None:
    """Raise ValueError where values have their types, but no run has them."""
    plan, output, grey, model = run.plan, run.output, run.normalisation, run.identity.model
    ready = PurePath((run.publication and run.publication.ready) or "volume")
    spans = zip(plan.region, plan.shape, strict=True)
    fitting = {
        "plan.shape": (plan.shape, plan.shape == run.identity.input.shape),
        "plan.region": (plan.region, all(0 <= start < stop <= side for (start, stop), side in spans)),
        "plan.scale": (plan.scale, plan.scale == model.config.scale),
        "plan.tile": (plan.tile, all(side > 0 and side % ALIGNMENT == 0 for side in plan.tile)),
        "plan.halo": (plan.halo, plan.halo >= 0 and plan.halo % ALIGNMENT == 0),
        "plan.block": (plan.block, min(plan.block) > 0),
        "output.shape": (output.shape, output.shape == plan.output_shape),
        "output.scale": (output.scale, output.scale == plan.scale),
        "output.block": (output.block, output.block > 0),
        "normalisation.high": (grey.high, math.isfinite(grey.high - grey.low) and grey.low < grey.high),
        "normalisation.bounds": (grey.bounds, grey.bounds[0] < grey.bounds[1]),
        "publication.ready": (str(ready), ready.parts[:1] in (("volume",), ("export",)) and ".." not in ready.parts),
    }
    for name, (value, fits) in fitting.items():
        if not fits:
            raise ValueError(f"run.{name} is {value!r:.60}, which no run like this has")


def _sha256(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
