"""The widget: super-resolves the visible part of an image layer in a thread, and lays the result over it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import napari
import numpy as np
from magicgui.widgets import CheckBox, ComboBox, Container, Label, PushButton
from napari.layers import Image
from napari.qt.threading import GeneratorWorker, create_worker

from emsr_fast.errors import EmsrError, UsageError
from emsr_fast.infer.array import ArrayVolume, Result
from emsr_fast.napari.layers import described_file, is_upright, layer_options, map_options, voxel_size_of
from emsr_fast.napari.placement import Placement
from emsr_fast.napari.region import Region, super_resolve_region, visible_region
from emsr_fast.napari.triton_apart import load_triton

Step = tuple[int, int, Result]
_ANY_SIZE = "any pixel size"


class SuperResolve(Container):
    """A form with image, model and trust, and buttons to run and to cancel."""

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        # napari knows the parameter by this name; the annotation is text, which it does not read
        from emsr_fast.model.zoo import DEFAULT_MODEL, available_models

        viewer = self._viewer = napari_viewer
        self._worker: GeneratorWorker | None = None
        self.image = ComboBox(choices=lambda widget: _images(viewer), label="image", nullable=True)
        self.file = Label(value="")
        self.model = ComboBox(choices=available_models(), value=DEFAULT_MODEL, label="model")
        self.any_size = CheckBox(value=False, text=_ANY_SIZE)
        self.trust = CheckBox(value=False, text="maps of trust (9 times the time)")
        self.run_button = PushButton(text="Super-resolve what is visible")
        self.cancel_button = PushButton(text="Cancel", enabled=False)
        self.status = Label(value="")
        buttons = [self.run_button, self.cancel_button]
        super().__init__(widgets=[self.image, self.file, self.model, self.any_size, self.trust, *buttons, self.status])
        self.file.native.setWordWrap(True)
        for event in (viewer.layers.events.inserted, viewer.layers.events.removed):
            event.connect(self._list_images)
        self.image.changed.connect(self._describe)
        self._list_images()
        self.run_button.changed.connect(self.start)
        self.cancel_button.changed.connect(self.cancel)

    def _list_images(self) -> None:
        self.image.reset_choices()
        if self.image.value is None and (images := _images(self._viewer)):
            self.image.value = images[-1]

    def _describe(self, layer: Image | None) -> None:
        self.file.value = described_file(layer.metadata) if layer is not None else ""

    def start(self) -> None:
        """Start on the part visible now, in a thread; if that is not possible, the status says why."""
        layer = self.image.value
        try:
            source, region, placement = _understood(layer, self._viewer)
        except EmsrError as error:
            self.status.value = str(error)
            return
        options = {"contrast_limits": layer.contrast_limits, "colormap": layer.colormap.name}
        name, flat = layer.name, layer.ndim == 2
        worker = create_worker(
            _steps,
            source,
            region,
            self.model.value,
            with_trust=self.trust.value,
            any_size=self.any_size.value,
            _start_thread=False,
            _ignore_errors=True,
        )
        last: list[Step] = []

        def show(step: Step) -> None:
            last[:] = [step]
            self.status.value = f"{step[0]} of {step[1]} tiles"

        def finish() -> None:
            self._worker = None
            self.run_button.enabled, self.cancel_button.enabled = True, False
            if last and last[0][0] == last[0][1]:
                _add_layers(self._viewer, last[0][2], region, placement, name, options, flat=flat)
                bounded = last[0][2].bounded
                self.status.value = f"done; {bounded} hot pixels were bounded" if bounded else "done"

        worker.yielded.connect(show)
        worker.aborted.connect(lambda: setattr(self.status, "value", "cancelled"))
        worker.errored.connect(self._tell)
        worker.finished.connect(finish)
        self._worker = worker
        self.run_button.enabled, self.cancel_button.enabled = False, True
        self.status.value = (
            f"slice {region.z}, {region.rows[1] - region.rows[0]} x {region.cols[1] - region.cols[0]} px"
        )
        worker.start()

    def cancel(self) -> None:
        """Stop after the tile that is being computed; nothing is added to the view."""
        if self._worker is not None:
            self.status.value = "cancelling"
            self._worker.quit()

    def _tell(self, error: Exception) -> None:
        self.status.value = str(error)
        if not isinstance(error, EmsrError):
            # a fault of ours: napari shows where
            raise error


def _images(viewer: napari.Viewer) -> list[Image]:
    return [layer for layer in viewer.layers if isinstance(layer, Image)]


def _understood(layer: Image | None, viewer: napari.Viewer) -> tuple[ArrayVolume, Region, Placement]:
    """Return the layer as a volume, its visible region, and its placement.

    Raises:
        UsageError: there is no grey stack, it is turned, or nothing of it is visible.
        VolumeError: its pixels are no grey values.
    """
    if layer is None:
        raise UsageError("there is no image; open one first")
    if layer.rgb or layer.ndim not in (2, 3):
        raise UsageError(f"{layer.name} is not a grey image with axes Y, X or Z, Y, X; choose another")
    if not is_upright({"rotate": layer.rotate, "shear": layer.shear, "affine": layer.affine}):
        raise UsageError(f"{layer.name} is rotated or sheared; set its rotate and shear to 0")
    if viewer.dims.ndisplay != 2 or tuple(viewer.dims.order[-2:]) != (viewer.dims.ndim - 2, viewer.dims.ndim - 1):
        raise UsageError("the view is not that of a slice; switch 3D off, and roll the axes back")
    data = layer.data[0] if layer.multiscale else layer.data
    source = ArrayVolume(data, voxel_size_of({"scale": layer.scale, "units": layer.units}, layer.ndim), layer.name)
    corners = np.asarray(layer.corner_pixels, dtype=np.float64)[:, -2:]
    if layer.multiscale:
        corners = corners * np.asarray(layer.downsample_factors[layer.data_level])[-2:]
    here = layer.world_to_data(viewer.dims.point)
    region = visible_region(corners, float(here[0]) if layer.ndim == 3 else 0.0, source.shape)
    one, none = [1.0] * (3 - layer.ndim), [0.0] * (3 - layer.ndim)
    scale, translate = (*one, *map(float, layer.scale)), (*none, *map(float, layer.translate))
    units = (*["pixel"] * (3 - layer.ndim), *map(str, layer.units))
    return source, region, Placement(_three(scale), _three(translate), _three(units))


def _three(values: Any) -> Any:
    first, second, third = values
    return first, second, third


def _steps(source: ArrayVolume, region: Region, model: str, *, with_trust: bool, any_size: bool) -> Iterator[Step]:
    """Yield what ``super_resolve_region`` yields; loads the model first."""
    load_triton()
    from emsr_fast.engine import TorchEngine
    from emsr_fast.infer.fingerprint import of_model
    from emsr_fast.infer.trust_maps import prepare_trust
    from emsr_fast.io.intensity import for_model
    from emsr_fast.io.pixel_size import InputVoxel, fit_to_model
    from emsr_fast.model import load_model

    network = load_model(model)
    choice = InputVoxel(resample=False) if any_size else None
    remedy = f'choose another model, or tick "{_ANY_SIZE}" to run on the pixels as they are'
    fit_to_model(source, network.card.lr_pixel_nm, network.card.name, choice, remedy=remedy)
    grey = for_model(source, network.card)
    trust = prepare_trust(source, grey, model, of_model(network).sha256) if with_trust else None
    yield from super_resolve_region(source, TorchEngine(network), region, grey, trust)


def _add_layers(
    viewer: napari.Viewer,
    result: Result,
    region: Region,
    placement: Placement,
    name: str,
    options: dict[str, Any],
    *,
    flat: bool,
) -> None:
    """Add the result and its maps to ``viewer``, each at its place."""
    corner = (region.z, region.rows[0], region.cols[0])
    shown = [(f"{name} x{result.scale}", result.image, result.scale, options)]
    for number, (map_name, values) in enumerate(result.maps.items()):
        scale = 1 if values.shape != result.image.shape else result.scale
        shown.append((f"{name}: {map_name}", values, scale, {**map_options(map_name), "visible": number == 0}))
    for title, image, scale, how in shown:
        placed = layer_options(placement.part(corner, scale))
        if flat:
            placed = {key: value[1:] for key, value in placed.items()}
        viewer.add_image(image[0] if flat else image, name=title, **placed, **how)
