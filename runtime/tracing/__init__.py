"""Functions of Tensors traced into graphs: `og.compile`."""
