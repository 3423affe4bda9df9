"""Ours and its peers, side by side in one run: ratios count, not seconds. `python -m benchmarks --help`."""
