"""Benchmarks: the same stream through this library and through what one would use without it."""
