"""From dense detections to labels: Warp kernels for CPU and CUDA; their reference implementation is in test/."""
