"""Labelled images in the datasets' official layouts, for training and evaluation."""
