"""Folders of small images."""

import numpy as np
import tifffile
from PIL import Image


def picture(seed=0):
    return np.random.default_rng(seed).integers(0, 255, (20, 30)).astype(np.uint8)


def save(folder, *names):
    for number, name in enumerate(names):
        path = folder / name
        tifffile.imwrite(path, picture(number)) if path.suffix.startswith(".tif") else Image.fromarray(
            picture(number)
        ).save(path)
