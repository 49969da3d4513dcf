"""Values far from all others do not move the measured grey range; small bright features and padding do."""

import dataclasses
import json

import numpy as np
import pytest
import tifffile
import zarr
from scipy.ndimage import gaussian_filter

from emsr_fast import super_resolve
from emsr_fast.cli import main
from emsr_fast.infer.strict_json import read_as
from emsr_fast.io.intensity import Normalisation, for_model, measure
from emsr_fast.io.registry import open_source
from emsr_fast.preview.job import make_preview

PERCENTILES = (0.1, 99.9)


def tissue(shape=(2, 96, 96), low=233.0, high=402.0, seed=0):
    """Return smooth noise from ``low`` to ``high``, float64."""
    image = gaussian_filter(np.random.default_rng(seed).normal(size=shape), (0, 2, 2))
    return low + (high - low) * (image - image.min()) / np.ptp(image)


def file_of(folder, pixels, dtype, name="in.tif"):
    tifffile.imwrite(folder / name, pixels.astype(dtype), photometric="minisblack")
    return folder / name


def measured(folder, pixels, dtype):
    with open_source(file_of(folder, pixels, dtype)) as source:
        return measure(source)


def with_column(pixels, value):
    pixels[:, :, 5] = value


def with_border(pixels, value):
    pixels[:, :, :4] = value


def with_corner(pixels, value):
    pixels[:, :8, :8] = value


def with_salt(pixels, value):
    pixels[np.random.default_rng(1).random(pixels.shape) < 0.002] = value


def with_both_ends(pixels, value):
    pixels[:, :3] = value
    pixels[:, -3:] = -value


@pytest.mark.parametrize(
    ("marked", "value", "dtype"),
    [
        (with_column, 65535, "u2"),
        (with_column, 4095, "u2"),
        (with_column, -32768, "i2"),
        (with_corner, -9999, "f4"),
        (with_salt, 60000, "u2"),
        (with_border, 1e9, "f4"),
        (with_border, 1e17, "f4"),
        (with_both_ends, 1e6, "f4"),
    ],
)
def test_values_apart_are_left_out_of_the_range(tmp_path, marked, value, dtype):
    pixels = tissue()
    marked(pixels, value)
    pixels = pixels.astype(dtype)
    image = pixels[np.abs(pixels.astype(float)) < 3000]
    found = measured(tmp_path, pixels, dtype)
    assert (found.low, found.high) == tuple(np.percentile(image.astype(float), PERCENTILES))
    apart = pixels.size - image.size
    assert found.note.startswith(f"{apart} of {pixels.size} sampled pixels (")
    assert f"{value:.7g}" in found.note
    assert "taken for hot pixels or marks of absent data and left out" in found.note
    assert "`intensity_range=LO:HI`" in found.note
    assert found.origin == f"percentiles 0.1 and 99.9 of 2 slices without {apart} pixels far from the others"
    assert read_as(Normalisation, json.loads(json.dumps(dataclasses.asdict(found))), "grey") == found


def test_one_hot_pixel_of_a_small_image_is_left_out(tmp_path):
    pixels = tissue((1, 24, 24))
    pixels[0, 12, 12] = 4095
    found = measured(tmp_path, pixels, "u2")
    assert found.high < 403
    assert found.note.startswith("1 of 576 sampled pixels (0.17 %) are 4095, far from the others at 233 .. 402")


def ordinary():
    rng = np.random.default_rng(3)
    rows, cols = np.mgrid[:128, :128]
    particles = rng.normal(1000, 3, (1, 128, 128))
    for y, x, amount in zip(*rng.uniform(0, 128, (2, 12)), rng.uniform(5000, 20000, 12), strict=True):
        particles[0] += amount * np.exp(-((rows - y) ** 2 + (cols - x) ** 2) / 2)
    padded = tissue((1, 128, 128), 20000, 40000)
    padded[:, :9] = 0
    background = np.zeros((1, 128, 128))
    background[0, 40:50, 40:50] = tissue((1, 10, 10), 20000, 40000)
    labels = np.zeros((1, 128, 128))
    labels[0, 30:40, 30:60], labels[0, 60:70] = 5000, 1
    return {
        "tissue": tissue((1, 128, 128)),
        "small bright particles with blurred edges": particles,
        "black padding": padded,
        "a small field on an empty background": background,
        "few values": labels,
        "counts with a long tail": rng.lognormal(5, 1, (1, 128, 128)),
    }


@pytest.mark.parametrize("name", ordinary())
def test_ordinary_images_keep_their_range_to_the_bit(tmp_path, name):
    pixels = ordinary()[name].clip(0, 65535).astype("u2")
    found = measured(tmp_path, pixels, "u2")
    assert (found.low, found.high) == tuple(np.percentile(pixels.astype(float), PERCENTILES))
    assert found.note == ""
    assert "note" not in found.as_metadata()


def test_more_than_a_tenth_is_taken_for_image_and_told(tmp_path):
    pixels = tissue((1, 96, 96))
    pixels[:, :30] = -9999
    pixels[0, 50, 50:52] = 233, 402
    found = measured(tmp_path, pixels, "i2")
    assert found.low == -9999
    assert "(31 %) are -9999, far from the others at 233 .. 402: taken for image, being many" in found.note
    assert found.note.endswith("give `intensity_range=233:402`")


def test_a_dead_column_changes_nothing_far_from_it(tmp_path, capsys):
    clean = tissue((1, 64, 96)).astype("u2")
    dead = clean.copy()
    dead[:, :, 5] = 65535
    outputs = []
    for name, pixels in (("clean", clean), ("dead", dead)):
        path = file_of(tmp_path, pixels, "u2", f"{name}.tif")
        assert main(["infer", str(path), "-o", str(tmp_path / f"{name}.zarr"), "--input-voxel", "ignore"]) == 0
        outputs.append(zarr.open(tmp_path / f"{name}.zarr", mode="r"))
    told = capsys.readouterr().err
    assert told.count("note    64 of 6144 sampled pixels (1 %) are 65535") == 1
    far = np.abs(outputs[0]["0"][:, :, 90:].astype(float) - outputs[1]["0"][:, :, 90:])
    # the two ranges are percentiles of nearly the same pixels
    assert far.max() <= 2
    assert "65535" in outputs[1].attrs["emsr_fast"]["normalisation"]["note"]
    assert "note" not in outputs[0].attrs["emsr_fast"]["normalisation"]
    with pytest.warns(UserWarning, match=r"^64 of 6144 sampled pixels .* are 65535"):
        found = super_resolve(dead)
    assert found.tobytes() == outputs[1]["0"][:].tobytes()


def test_a_given_range_decides(tmp_path):
    pixels = tissue((1, 64, 64))
    pixels[:, :, 5] = 65535
    with open_source(file_of(tmp_path, pixels, "u2")) as source:
        given = Normalisation(0.0, 65535.0, "given")
        assert for_model(source, _card(), given).note == ""


def test_a_preview_says_what_was_left_out(tmp_path):
    pixels, lines = tissue((1, 64, 64)), []
    pixels[:, :, 5] = 65535
    make_preview(file_of(tmp_path, pixels, "u2"), with_trust=False, say=lines.append)
    assert any(line.startswith("note    64 of 4096 sampled pixels") for line in lines)


def _card():
    from emsr_fast import load_model

    return load_model(device="cpu").card
