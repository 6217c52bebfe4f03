"""Lessons on PyTorch whose code runs here line by line: `import onnxgrad as torch`."""
