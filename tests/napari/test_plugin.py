"""The plugin inside napari, offscreen: needs the extra napari; `make napari` installs it and runs this."""

import os
import time

import numpy as np
import pytest
import tifffile

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
pytest.importorskip("napari")
pytestmark = pytest.mark.napari

from napari.components import ViewerModel  # noqa: E402  after the check
from napari.qt import get_qapp  # noqa: E402  after the check

from emsr_fast.napari.layers import described_file  # noqa: E402  after the check
from emsr_fast.napari.widget import SuperResolve  # noqa: E402  after the check
from vendor_tiffs import ROWS, fei_ini, pixels, vendor_tiff  # noqa: E402  after the check


@pytest.fixture
def viewer():
    """All of a viewer but its window, which test_window.py opens: the canvas wants OpenGL."""
    return ViewerModel()


@pytest.fixture
def wait():
    """Wait until a condition holds; events are processed meanwhile."""
    application = get_qapp()

    def until(condition):
        last = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < last, "nothing happened for a minute"
            application.processEvents()
            time.sleep(0.01)

    return until


@pytest.fixture
def plugin():
    """The manifest, as napari would find it, without the installed entry point."""
    from importlib import resources

    from npe2 import PluginManager, PluginManifest

    manager = PluginManager.instance()
    manifest = PluginManifest.from_file(str(resources.files("emsr_fast.napari") / "napari.yaml"))
    if manifest.name not in manager:
        manager.register(manifest)
    return manifest


def test_the_manifest_is_valid_and_its_commands_load(plugin):
    plugin.validate_imports()
    assert {type(c).__name__ for c in plugin.contributions.commands} == {"CommandContribution"}


def test_a_stack_is_opened_and_saved_by_the_plugin(plugin, viewer, stack, tmp_path):
    (layer,) = viewer.open(str(stack), plugin="emsr-fast")
    assert layer.data.shape == (48, 192, 192)
    np.testing.assert_allclose(layer.scale, (1, 10, 10))
    (written,) = viewer.layers.save(str(tmp_path / "a.tif"), plugin="emsr-fast")
    np.testing.assert_array_equal(tifffile.imread(written), tifffile.imread(stack))


def test_the_form_says_what_the_file_of_its_image_is(plugin, viewer, tmp_path):
    widget = SuperResolve(viewer)
    assert widget.file.value == ""
    vendor_tiff(tmp_path / "a.tif", pixels(ROWS + 6), tags=[(34682, fei_ini())])
    (layer,) = viewer.open(str(tmp_path / "a.tif"), plugin="emsr-fast")
    said = described_file(layer.metadata)
    assert "made by FEI Quanta FEG" in said
    assert widget.file.value == said
    widget.image.value = viewer.add_image(np.ones((30, 30)), name="of somebody else")
    assert widget.file.value == ""
    widget.image.value = layer
    assert widget.file.value == said


@pytest.mark.parametrize("trust", [False, True])
def test_what_is_visible_is_super_resolved_in_place(viewer, stack, wait, trust):
    image = tifffile.imread(stack)
    layer = viewer.add_image(image, name="em", scale=(30, 24, 24), translate=(0, 5, 7), units=("nm",) * 3)
    widget = SuperResolve(viewer)
    viewer.dims.set_point(0, 4 * 30)
    layer.corner_pixels = np.array([[4, 20, 31], [4, 60, 70]])
    widget.trust.value = trust
    widget.start()
    wait(lambda: widget.status.value == "done" or widget.run_button.enabled)
    assert widget.status.value == "done"
    result = viewer.layers["em x3"]
    assert result.data.shape == (1, 3 * 41, 3 * 40)
    # the same point of the world in both, at pixel centres
    np.testing.assert_allclose(result.data_to_world((0, 1, 1)), layer.data_to_world((4, 20, 31)))
    np.testing.assert_allclose(result.data_to_world((0, 121, 118)), layer.data_to_world((4, 60, 70)))
    # and it is that part: made coarse again, closer to it than to any neighbour
    coarse = result.data[0].reshape(41, 3, 40, 3).mean(axis=(1, 3))
    apart = {
        (dy, dx): np.abs(coarse - image[4, 20 + dy : 61 + dy, 31 + dx : 71 + dx]).mean()
        for dy in (-1, 0, 1)
        for dx in (-1, 0, 1)
    }
    assert min(apart, key=apart.get) == (0, 0)
    names = {"em: error", "em: disagreement", "em: residual"} if trust else set()
    assert {other.name for other in viewer.layers} == {"em", "em x3"} | names
    if trust:
        residual = viewer.layers["em: residual"]
        np.testing.assert_allclose(residual.data_to_world((0, 0, 0)), layer.data_to_world((4, 20, 31)))


def test_cancelling_adds_nothing_and_leaves_the_widget_ready(viewer, stack, wait):
    layer = viewer.add_image(np.tile(tifffile.imread(stack)[0], (4, 4)), name="em")
    widget = SuperResolve(viewer)
    layer.corner_pixels = np.array([[0, 0], [767, 767]])
    widget.start()
    wait(lambda: widget.status.value.endswith("of 36 tiles"))
    widget.cancel()
    wait(lambda: widget.run_button.enabled)
    assert [other.name for other in viewer.layers] == ["em"]
    assert not widget.cancel_button.enabled


def test_another_pixel_size_is_run_if_asked_for(viewer, stack, wait):
    layer = viewer.add_image(tifffile.imread(stack)[0], name="em", scale=(0.01, 0.01), units=("um", "um"))
    widget = SuperResolve(viewer)
    widget.any_size.value = True
    layer.corner_pixels = np.array([[0, 0], [30, 30]])
    widget.start()
    wait(lambda: widget.run_button.enabled)
    assert widget.status.value == "done"
    assert viewer.layers["em x3"].data.shape == (93, 93)


def test_what_cannot_be_done_is_said_in_the_widget(viewer, wait):
    widget = SuperResolve(viewer)
    widget.start()
    assert "no image" in widget.status.value
    layer = viewer.add_image(np.zeros((50, 60), np.uint16), name="flat")
    layer.rotate = 30
    widget.start()
    assert "rotated" in widget.status.value
    layer.rotate = 0
    layer.corner_pixels = np.array([[0, 0], [49, 59]])
    widget.start()
    # found in the thread: it has to look at the pixels
    wait(lambda: widget.run_button.enabled)
    assert "is constant" in widget.status.value
    layer.scale, layer.units = (5, 5), ("nm", "nm")
    widget.start()
    wait(lambda: widget.run_button.enabled)
    assert "a mismatch of 176 %" in widget.status.value
    assert 'tick "any pixel size"' in widget.status.value
    viewer.dims.ndisplay = 3
    widget.start()
    assert "switch 3D off" in widget.status.value
