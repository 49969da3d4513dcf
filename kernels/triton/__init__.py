"""Triton kernels, one module per operator; importing one needs triton, so only a chosen backend imports them."""
