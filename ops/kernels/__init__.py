"""Kernels, one folder a backend; the family names are those of `ops`."""
