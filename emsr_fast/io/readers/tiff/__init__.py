"""TIFF: stacks, OME and ImageJ metadata."""
