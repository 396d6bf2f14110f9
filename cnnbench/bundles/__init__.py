"""WHAT ships: a verified ONNX file, and what lies beside it."""
