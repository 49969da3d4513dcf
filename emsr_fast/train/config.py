"""The settings of a training run, checked before anything is read; the defaults are the paper's."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from emsr_fast.errors import UsageError, VolumeError
from emsr_fast.io.selection import whole_number
from emsr_fast.model.config import EmsrConfig
from emsr_fast.reading import read_regular
from emsr_fast.train.settings_text import MOST_BYTES, parse_yaml
from emsr_fast.wording import quoted, shortened

GREY = 1 / 255  # noise is given in grey levels of 255, as in the paper


def _ordered(ends: tuple[float, float]) -> tuple[float, float]:
    if not 0 <= ends[0] <= ends[1] < float("inf"):
        raise ValueError(f"must be two numbers from low to high, not negative, got {list(ends)}")
    return ends


Range = Annotated[tuple[float, float], AfterValidator(_ordered)]  # drawn from uniformly


def _positive(ends: tuple[float, float]) -> tuple[float, float]:
    if _ordered(ends)[0] <= 0:
        raise ValueError(f"must be above 0, got {list(ends)}")
    return ends


def _reducing(ends: tuple[float, float]) -> tuple[float, float]:
    if _ordered(ends)[0] < 1:
        raise ValueError(f"must be 1 or more, got {list(ends)}")
    return ends


def _share(ends: tuple[float, float]) -> tuple[float, float]:
    if _ordered(ends)[1] > 1:
        raise ValueError(f"must be shares from 0 to 1, got {list(ends)}")
    return ends


Share = Annotated[tuple[float, float], AfterValidator(_share)]
# of a factor the logarithm is drawn uniformly: 1 to 2 is as frequent as 2 to 4
Factor = Annotated[tuple[float, float], AfterValidator(_positive)]
Reduction = Annotated[tuple[float, float], AfterValidator(_reducing)]


class SettingsGroup(BaseModel):
    """A group of settings; a key that does not exist is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Noise(SettingsGroup):
    """Noise added to a degraded LR image, in grey levels of 255."""

    kind: Literal["none", "gaussian", "poisson_gaussian", "local_variance"] = "gaussian"
    sigma: Range = (0.0, 0.0)  # gaussian: standard deviation, drawn uniformly for each crop
    gain: Range = (0.0, 0.0)  # poisson_gaussian: variance = gain * intensity + offset, in levels squared
    offset: Range = (0.0, 0.0)
    # gaussian: the share of the variance that grows with the intensity as that of counted electrons does, from none at
    # black to twice that of mid grey at white
    signal_share: Share = (0.0, 0.0)
    blur_px: Range = (0.0, 0.0)  # LR pixels: noise blurred by a Gaussian; its standard deviation stays
    strength: float = 0.05  # local_variance: variance = strength * blurred image (the "crappifier"), in units of 1


class Degradation(SettingsGroup):
    """How a synthetic LR image is made from HR: HR made coarser, blur, reduce, noise."""

    # HR and reference become area means of so many pixels each way, drawn for each crop: one image serves at many pixel
    # sizes, and its noise falls
    hr_reduction: Reduction = (1.0, 1.0)
    blur_sigma_px: Range = (0.0, 0.0)  # HR pixels, drawn uniformly for each crop
    reduce: Literal["area", "linear"] = "area"
    noise: Noise = Noise()


class Source(SettingsGroup):
    """Where training pairs come from; volumes and folders are read by the same formats as ``emsr-fast infer``."""

    strategy: Literal["synthetic", "real", "denoised"] = "synthetic"
    hr: Path | None = None  # reference: noisy HR (real, synthetic), denoised HR (denoised)
    lr: Path | None = None  # acquired LR; synthetic: the HR that LR is made from, if not ``hr`` itself
    pairs: Path | None = None  # instead of both: a CSV with the columns lr and hr, paths relative to it
    pattern: tuple[str, str] | None = (
        None  # one folder with both: file name endings of lr and hr, as "_A.png", "_B.png"
    )
    intensity_range: str | None = (
        None  # "lo:hi", grey values of lr and hr that become 0 and 1; default: measured of each file as infer does
    )
    channel: int | None = Field(default=None, ge=0)  # which one of lr and hr that have several, counted from 0
    keep_data_bar: bool = False  # whether the printed strip below a microscope's image is read, too
    volume: bool = False  # a folder of images is one volume: its files are consecutive slices
    rows: str = ":"  # HR rows a:b to train on
    slices: str = ":"  # slices a:b to train on
    validation_rows: str | None = None  # HR rows held back for validation
    validation_slices: str | None = None  # slices held back
    validation_every: int | None = Field(default=None, ge=2)  # of several files, every n-th pair is held back
    validation_share: float | None = Field(default=None, gt=0, le=0.5)  # instead of these three: files or slices, one
    # in ten for 0.1; of fewer than five the lower rows of each
    reference_offset: int = 0  # synthetic: the reference is this many slices after the one that LR is made from
    drift: bool = False  # synthetic, of two scans of one field: bend the one that LR is made from onto the reference
    weight: float = Field(default=1.0, gt=0)  # share of the crops
    degradation: Degradation = Degradation()
    denoiser: Literal["nlm", "wavelet", "bm3d"] | None = None  # denoised: make the references from ``hr``, once

    @model_validator(mode="after")
    def _complete(self) -> Source:
        if (self.pairs is None) == (self.hr is None):
            raise ValueError("give either hr or pairs")
        if self.strategy != "synthetic" and self.pairs is None and self.lr is None and self.pattern is None:
            raise ValueError(f"strategy {self.strategy} needs lr as well as hr")
        if self.validation_share and (self.validation_rows or self.validation_slices or self.validation_every):
            raise ValueError("validation_share stands alone; leave out validation_rows, _slices and _every")
        if self.drift and (self.strategy != "synthetic" or not (self.lr or self.pairs or self.pattern)):
            raise ValueError("drift is for the strategy synthetic with two scans: give pattern, pairs, or lr and hr")
        if self.drift and self.reference_offset:
            raise ValueError("drift and reference_offset exclude each other")
        if self.reference_offset and self.strategy != "synthetic":
            raise ValueError("reference_offset is for the strategy synthetic")
        return self


class Loss(SettingsGroup):
    """L(f(y), x), L(f(y'), x) and L(f(y), f(y')), y' being y with more noise."""

    kind: Literal["l1", "l2", "charbonnier"] = "l1"
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0)
    extra_sigma: Range = (0.0, 5.0)  # noise of y', grey levels of 255, drawn for each batch
    stop_gradient: bool = False  # in the third term, f(y) is only a reference
    edges: float = Field(default=0.0, ge=0)  # weight of L between the à-trous details of f(y) and x

    @field_validator("weights")
    @classmethod
    def _some(cls, weights: tuple[float, float, float]) -> tuple[float, float, float]:
        if not 0 <= min(weights) <= max(weights) < float("inf") or weights[0] + weights[1] == 0:
            raise ValueError(f"weights must not be negative, and the first or second above 0, got {list(weights)}")
        return weights


class Optimiser(SettingsGroup):
    """Optimiser and learning rate."""

    kind: Literal["adam", "adamw"] = "adam"
    rate: float = Field(default=1e-4, gt=0)
    schedule: Literal["halving", "cosine", "constant"] = "halving"
    halve_every: int = Field(default=50_000, ge=1)  # steps
    warm_up: int = Field(default=0, ge=0)  # steps
    weight_decay: float = Field(default=0.0, ge=0)
    clip: float | None = Field(default=None, gt=0)  # largest norm of the gradient
    ema: float | None = Field(default=None, gt=0, lt=1)  # decay of the averaged weights, which are then the ones saved


class TrainConfig(SettingsGroup):
    """All settings of a run."""

    name: str = "my-model"
    output: Path = Path("run")
    model: dict[str, Any] = Field(default_factory=dict)  # fields of EmsrConfig
    start_from: str | None = None  # a model's name or path: fine-tune it, grown where ``model`` is a larger one
    sources: Annotated[list[Source], Field(min_length=1)]
    crop: int = Field(
        default=340, ge=4, multiple_of=4
    )  # side of an LR crop, px (341 in the paper, which is no multiple)
    batch: int = Field(default=2, ge=1)  # crops a step, over all processes
    steps: int = Field(default=200_000, ge=1)
    minutes: float | None = Field(default=None, gt=0)  # stop after this time, whatever the steps
    extra_lr_sigma: Range = (0.0, 5.0)  # noise on y itself, grey levels of 255, for each crop
    contrast: float = Field(default=0.0, ge=0, lt=1)  # random gain 1 +- contrast and as much offset, of y and x alike
    gamma: Factor = (1.0, 1.0)  # HR and reference, in [0, 1], to this power, drawn for each crop
    inversion: float = Field(default=0.0, ge=0, le=1)  # share of the crops whose black and white change places
    plain: float = Field(default=0.0, ge=0, le=1)  # share of the crops that show one grey level, and the noise of LR
    loss: Loss = Loss()
    optimiser: Optimiser = Optimiser()
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = True
    compile: bool = False
    device: str = "auto"
    workers: int = Field(default=0, ge=0)
    seed: int = Field(default=0, ge=0)
    validate_every: int = Field(default=1000, ge=1)  # steps
    validation_crops: int = Field(default=16, ge=0)
    checkpoint_every: int = Field(default=1000, ge=1)  # steps
    checkpoint_minutes: float = Field(default=10.0, gt=0)
    tensorboard: bool = False

    @field_validator("model")
    @classmethod
    def _architecture(cls, architecture: dict[str, Any]) -> dict[str, Any]:
        known = [field.name for field in fields(EmsrConfig)]
        if unknown := sorted(set(architecture) - set(known)):
            raise ValueError(f"unknown {unknown[0]!r}; known: {', '.join(known)}")
        EmsrConfig(**architecture)
        return architecture

    @property
    def architecture(self) -> EmsrConfig:
        """The network to train, unless ``start_from`` names one."""
        return EmsrConfig(**self.model)


def read_config(path: Path | None, changes: Sequence[str] = ()) -> TrainConfig:
    """Return the configuration in the YAML file ``path`` with ``changes`` such as "optimiser.rate=1e-3" applied.

    Relative paths in the file are relative to it.

    Raises:
        UsageError: the file is not YAML, or a setting is unknown or out of range; says which.
        VolumeError: the file cannot be read.
    """
    where = str(path) if path else "the command line"
    try:
        values: Any = parse_yaml(read_regular(path, MOST_BYTES).decode(), where) if path else {}
        if not isinstance(values, dict):
            raise UsageError(f"{where} holds no settings; write an example with `init`")
        if path:
            _anchor(values, path.resolve().parent)
        # paths on the command line are relative to where it is typed
        for change in changes:
            _apply(values, change)
        return TrainConfig.model_validate(values)
    except OSError as error:
        raise VolumeError(f"{where} cannot be read: {error.strerror}; check the path and its permissions") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{where} is not YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "settings"
        seen = "" if isinstance(first["input"], dict) else f", got {shortened(repr(first['input']))}"
        said = shortened(first["msg"].removeprefix("Value error, "), 300)
        raise UsageError(f"{where}: {shortened(key)}: {said}{seen}") from error


def _apply(values: dict[str, Any], change: str) -> None:
    key, sign, text = change.partition("=")
    if not sign or not key:
        raise UsageError(f"setting {quoted(change)}: give key=value, as in optimiser.rate=1e-3")
    *groups, last = key.split(".")
    place: Any = values
    for group in groups:
        if isinstance(place, list):
            number = whole_number(group)
            if number is None or number >= len(place):
                raise UsageError(
                    f"setting {quoted(key)}: {quoted(group)} is none of the {len(place)} entries, counted from 0"
                )
            place = place[number]
        else:
            place = place.setdefault(group, {})
        if not isinstance(place, dict | list):
            raise UsageError(f"setting {quoted(key)}: {quoted(group)} is not a group of settings")
    if not isinstance(place, dict):
        raise UsageError(f"setting {quoted(key)} names a whole entry of a list; name one of its keys")
    try:
        value = parse_yaml(text, "it")
    except UsageError as error:
        raise UsageError(
            f"setting {quoted(key)}: {quoted(text)} is not a value; give a number, a word or a [list]"
        ) from error
    # YAML 1.1 reads 1e-3 as text
    if isinstance(value, str):
        with suppress(ValueError):
            value = float(value)
    place[last] = value


def _anchor(values: dict[str, Any], folder: Path) -> None:
    """Make the relative paths of the file absolute; $NAME in them is the environment's."""

    def anchor(group: Any, key: str) -> None:
        if isinstance(group, dict) and isinstance(group.get(key), str):
            group[key] = str(folder / Path(os.path.expandvars(group[key])).expanduser())

    sources = values.get("sources")
    for source in sources if isinstance(sources, list) else ():
        for key in ("hr", "lr", "pairs"):
            anchor(source, key)
    anchor(values, "output")
    # a name of a shipped model is no path
    if (folder / os.path.expandvars(str(values.get("start_from")))).is_file():
        anchor(values, "start_from")
