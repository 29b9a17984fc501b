"""Causal attention whose pages pass a gate around the top-k cut: an eager reference and Triton kernels."""
