"""Published object detectors as ONNX files, and the boxes that several of them agree on: labels to learn from."""
