"""Benchmarks: timings and accuracy tables, each a command of its own; see docs/performance.md and docs/accuracy.md."""
