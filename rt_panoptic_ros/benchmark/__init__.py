"""What benchmarks share: two ways of the same work timed in the same run, as machines are noisy, and made-up scenes."""
