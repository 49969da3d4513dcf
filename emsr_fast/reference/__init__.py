"""Every operator in plain PyTorch, readable as maths: what the kernels are tested against."""
