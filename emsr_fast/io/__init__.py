"""Volumes in and out: formats, axes, voxel sizes, grey values, and files that appear only when complete."""
