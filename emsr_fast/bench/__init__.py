"""Timings, with and without peers: shared by `emsr-fast bench` and the scripts in the repository's bench/."""
