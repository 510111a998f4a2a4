"""Inference engines behind one contract (see `base`)."""

import os

# From 1.29, ONNX Runtime sends its maker what models run, and writes an identifier into the home folder, or complains.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
