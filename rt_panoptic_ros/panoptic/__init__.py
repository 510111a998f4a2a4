"""From dense detections to labels: Warp kernels for CPU and CUDA, and their plain NumPy twins."""
