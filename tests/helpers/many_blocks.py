"""A run of infer in many small blocks, as arguments of the function and of the command."""

# the smallest memory makes many small blocks: 12 of 4 slices
MANY_BLOCKS = {"tile": 32, "halo": 0, "max_memory": "4MB", "roi": "0,0,0:48,64,64", "input_voxel": "ignore"}
AS_OPTIONS = [
    "--input-voxel",
    "ignore",
    "--tile",
    "32",
    "--halo",
    "0",
    "--max-memory",
    "4MB",
    "--roi",
    "0,0,0:48,64,64",
    "--device",
    "cpu",
]
