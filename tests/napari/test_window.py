"""The widget in napari's own window, with a canvas: needs the extra napari and xvfb-run; `make napari` runs it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("napari")
pytestmark = [
    pytest.mark.napari,
    pytest.mark.skipif(shutil.which("xvfb-run") is None, reason="needs a screen: apt-get install xvfb"),
]

SESSION = """
import importlib.util, json, sys, time
import napari
import numpy as np
from napari.qt import get_qapp

stack, folder = sys.argv[1:]
viewer = napari.Viewer()
(layer,) = viewer.open(stack, plugin="emsr-fast")
_, widget = viewer.window.add_plugin_dock_widget("emsr-fast", "Super-resolve what is visible")
viewer.camera.zoom *= 2
get_qapp().processEvents()
widget.any_size.value = True  # not that of the file
widget.start()
last = time.monotonic() + 120
while not widget.run_button.enabled and time.monotonic() < last:
    get_qapp().processEvents()
    time.sleep(0.01)
result = viewer.layers[-1]
np.save(f"{folder}/result.npy", result.data)
viewer.screenshot(f"{folder}/window.png", canvas_only=False, flash=False)
layer.visible = False
viewer.reset_view(margin=0)
viewer.screenshot(f"{folder}/canvas.png", canvas_only=True, flash=False)
# what other plugins and torch itself import later
import torch._dynamo
if importlib.util.find_spec("triton"):
    import triton
print(json.dumps({"status": widget.status.value, "layers": [layer.name for layer in viewer.layers]}))
viewer.close()
"""


def test_the_widget_runs_in_the_window_and_its_result_is_on_the_canvas(stack, tmp_path):
    (tmp_path / "session.py").write_text(SESSION)
    environment = {
        **os.environ,
        "QT_QPA_PLATFORM": "xcb",
        "LIBGL_ALWAYS_SOFTWARE": "1",
        "NAPARI_CONFIG": str(tmp_path / "settings.yaml"),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    screen = ["xvfb-run", "--auto-servernum", "--server-args", "-screen 0 1400x900x24"]
    session = [sys.executable, "-X", "faulthandler", tmp_path / "session.py", stack, tmp_path]
    done = subprocess.run([*screen, *session], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told == {"status": "done", "layers": [stack.name, f"{stack.name} x3"]}
    assert np.asarray(Image.open(tmp_path / "window.png").convert("L")).std() > 0

    # the canvas shows the result alone, on black: where it lies, it is the result and none of its mirror images
    canvas = np.asarray(Image.open(tmp_path / "canvas.png").convert("L"))
    rows, cols = (np.flatnonzero(canvas.max(axis=axis) > 0) for axis in (1, 0))
    shown = canvas[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1].astype(float)
    result = np.load(tmp_path / "result.npy")[0]
    alike = {}
    for name, image in {"itself": result, "upside down": result[::-1], "mirrored": result[:, ::-1]}.items():
        expected = np.asarray(Image.fromarray(image).resize(shown.shape[::-1], Image.Resampling.BOX), float)
        alike[name] = np.corrcoef(shown.ravel(), expected.ravel())[0, 1]
    assert alike["itself"] > 0.9 > max(alike["upside down"], alike["mirrored"])
