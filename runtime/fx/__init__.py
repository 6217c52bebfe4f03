"""Modules as editable graphs of Python calls, by the names of `torch.fx`."""
