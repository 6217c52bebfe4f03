"""Tensors: what they hold, how they are made, and their methods."""
