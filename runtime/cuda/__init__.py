"""CUDA: devices, their memory and streams, and programs that run on them."""
