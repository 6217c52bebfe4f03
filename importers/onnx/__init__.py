"""ONNX: `.onnx` to graph, and graph back to the same `.onnx`."""
