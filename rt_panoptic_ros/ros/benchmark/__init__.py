"""Benchmarks of the running node."""
