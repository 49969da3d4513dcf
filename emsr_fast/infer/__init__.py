"""The main job: a volume in, a volume of finer pixels out, tile by tile."""
