"""Frames as they come: files, videos, cameras, messages."""
