"""The formats of the extra ``formats``: what installs them, where they are listed, what napari offers."""

import importlib.util
from pathlib import Path

import pytest

from emsr_fast.doctor import report
from emsr_fast.io.readers.parts.extra import PACKAGES, why_not_read

ROOT = Path(__file__).parents[2]
EXTRA = next(line for line in (ROOT / "pyproject.toml").read_text().splitlines() if line.startswith("formats = "))


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_is_in_the_extra_and_its_format_in_the_documents(package):
    kind, _ = PACKAGES[package]
    assert f'"{package}>=' in EXTRA
    assert f"({package})" in (ROOT / "docs" / "install.md").read_text()
    assert f"| {kind.split()[0]}" in (ROOT / "docs" / "formats.md").read_text()


def test_doctor_lists_the_formats_with_the_reason_why_one_cannot_be_read(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "nrrd" else found(name, *more))
    lines = report().splitlines()
    listed = lines[lines.index("formats") + 1 : lines.index("models")]
    read = [kind for package, (kind, _) in PACKAGES.items() if why_not_read(package) is None]
    assert not read or listed[0].endswith(f"  {', '.join(read)}")
    (nrrd,) = (line for line in listed if line.split()[0] == "NRRD")
    assert "no: pynrrd is not installed: " in nrrd
    assert why_not_read("pynrrd") in nrrd


def test_napari_offers_every_suffix():
    yaml = pytest.importorskip("yaml")
    manifest = yaml.safe_load((ROOT / "emsr_fast" / "napari" / "napari.yaml").read_text())
    (reader,) = manifest["contributions"]["readers"]
    suffixes = "dm3 dm4 ser emd ims czi nd2 nii nii.gz nrrd nhdr dat mrc n5 zarr h5 tif"
    assert {f"*.{suffix}" for suffix in suffixes.split()} <= set(reader["filename_patterns"])
