"""WHAT ships: a trained network as one ONNX file, and the proof that it is the network that was trained."""
