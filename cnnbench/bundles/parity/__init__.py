"""IS IT the network: the comparison of an ONNX file with PyTorch, in a separate process."""
