"""Timings, always beside a plain twin of the same work in the same run, since machines are noisy and differ."""
