"""Fields acquired twice, from one real image: geometry known exactly, made without the code under test."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

_SAMPLES = 4  # a side of an LR pixel, which sees the mean over its square


def matrix(ratio: float, degrees: float) -> np.ndarray:
    """Return LR px per HR px, (2, 2) in (y, x): HR turned counter-clockwise as displayed."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s], [s, c]]) / ratio


def acquired_lr(image, corner, hr_shape, centre, to_lr, lr_shape):
    """Return the LR field, float64, in which the HR field at ``corner`` of ``image`` has its centre at ``centre``."""
    spline = ndimage.spline_filter(image.astype(np.float64), order=3)
    middle = np.array(corner) + (np.array(hr_shape) - 1) / 2
    back = np.linalg.inv(to_lr)
    pixels = np.moveaxis(np.indices(lr_shape, dtype=np.float64), 0, -1) - centre
    inside_a_pixel = (np.arange(_SAMPLES) + 0.5) / _SAMPLES - 0.5
    field = np.zeros(lr_shape)
    for dy in inside_a_pixel:
        for dx in inside_a_pixel:
            places = (pixels + np.array([dy, dx])) @ back.T + middle
            places = np.moveaxis(places, -1, 0)
            field += ndimage.map_coordinates(spline, places, order=3, mode="mirror", prefilter=False)
    return field / _SAMPLES**2


def centre_at(share, hr_shape, to_lr, lr_shape):
    """Return the HR field's centre, LR px, when it is ``share`` (0 to 1, y and x) of the way between borders."""
    extent = np.abs(to_lr) @ np.array(hr_shape)
    return extent / 2 - 0.5 + np.array(share) * (np.array(lr_shape) - extent)
