"""Every operator in plain PyTorch, readable as maths: the definitions that kernels are tested against."""
