"""Automatic mixed precision: which ops compute in half precision, and gradients scaled so that they stay in it."""
