"""Volumes: formats to read and write, tiles to cut, the prediction that joins them."""
