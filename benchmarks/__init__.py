"""What a call costs: `python -m benchmarks`, or `make bench`. The method is told in docs/benchmarks.md."""
