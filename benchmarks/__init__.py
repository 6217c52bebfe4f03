"""The benchmark suite: `python -m benchmarks` measures, and writes RESULTS.md."""
