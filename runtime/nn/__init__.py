"""Layers, losses and their functions, by PyTorch's names."""
