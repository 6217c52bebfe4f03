"""Floor 3: files to graphs and graphs to files; the only floor that imports `onnx`."""
