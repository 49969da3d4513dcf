"""Timings beside peers: what `emsr-fast bench` and the scripts in the repository's bench/ share."""
