"""GPU kernels: CUDA C++ (compiled into emsr_fast._C) and Triton (compiled at first use)."""
