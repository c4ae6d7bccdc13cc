"""Torch operators over the kernels (CPU) and over stock torch (CUDA); one signature per
operator."""
