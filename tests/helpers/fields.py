"""Fields acquired twice, from one real image: geometry known exactly, made without the code under test."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

_SAMPLES = 4  # a side of an LR pixel, which sees the mean over its square


def matrix(ratio: float, degrees: float) -> np.ndarray:
    """Return LR px per HR px, (2, 2) in (y, x): HR turned counter-clockwise as displayed."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s], [s, c]]) / ratio


def acquired_lr(image, corner, hr_shape, centre, to_lr, lr_shape, bend=None):
    """Return the LR field, float64, in which the HR field at ``corner`` of ``image`` has its centre at ``centre``.

    ``bend``, if given, says by how many HR px LR is deformed, (..., 2), at HR px counted from that centre.
    """
    spline = ndimage.spline_filter(image.astype(np.float64), order=3)
    middle = np.array(corner) + (np.array(hr_shape) - 1) / 2
    back = np.linalg.inv(to_lr)
    pixels = np.moveaxis(np.indices(lr_shape, dtype=np.float64), 0, -1) - centre
    inside_a_pixel = (np.arange(_SAMPLES) + 0.5) / _SAMPLES - 0.5
    field = np.zeros(lr_shape)
    for dy in inside_a_pixel:
        for dx in inside_a_pixel:
            places = (pixels + np.array([dy, dx])) @ back.T
            if bend is not None:
                places = places + bend(places)
            places = np.moveaxis(places + middle, -1, 0)
            field += ndimage.map_coordinates(spline, places, order=3, mode="mirror", prefilter=False)
    return field / _SAMPLES**2


def centre_at(share, hr_shape, to_lr, lr_shape):
    """Return the HR field's centre, LR px, when it is ``share`` (0 to 1, y and x) of the way between borders."""
    extent = np.abs(to_lr) @ np.array(hr_shape)
    return extent / 2 - 0.5 + np.array(share) * (np.array(lr_shape) - extent)


def waves(places, amplitude, period):
    """Return a smooth bend for ``acquired_lr``, (..., 2): waves of about ``period`` along both axes."""
    k = 2 * np.pi / period
    y, x = places[..., 0], places[..., 1]
    down = np.sin(k * x + 0.4) * np.cos(0.8 * k * y)
    across = np.cos(0.9 * k * y + 1) * np.sin(0.7 * k * x + 2)
    return amplitude * np.stack([down, across], axis=-1)


def off_by(pose, displacement, hr_shape, centre, to_lr, bend, scale=3):
    """Return by how many LR px every pixel of a pair's LR grid, (h, w), is off the place that ``acquired_lr`` gave it.

    ``displacement`` is what was found beyond ``pose``, (2, h, w) pixels of that grid.
    """
    grid = np.moveaxis(np.indices(displacement.shape[1:], dtype=np.float64), 0, -1)
    hr = scale * grid + (scale - 1) / 2 - (np.array(hr_shape) - 1) / 2
    true = hr
    for _ in range(60):  # true + bend(true) = hr, by iteration
        true = hr - bend(true)
    moved = scale * (grid + np.moveaxis(displacement, 0, -1)) + (scale - 1) / 2
    found = pose.in_lr(moved.reshape(-1, 2), hr_shape).reshape(hr.shape)
    return np.linalg.norm(found - centre - true @ to_lr.T, axis=-1)
