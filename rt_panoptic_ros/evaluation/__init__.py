"""Panoptic quality, mean IoU, average precision, timing, and the file formats that they are exchanged in."""
