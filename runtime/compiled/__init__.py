"""The CPU engine: a graph becomes a program of native kernels over one arena."""
