"""WHAT ships: a proven ONNX file, and what stands beside it."""
