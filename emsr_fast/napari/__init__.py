"""The plugin for napari: reader, writer and widget; napari.yaml is its manifest. Extra: napari."""
