"""WHERE it runs: a bundle loaded and used with numpy and onnxruntime alone, no torch."""
