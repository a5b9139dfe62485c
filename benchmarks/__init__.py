"""Benchmarks: this package and Prefect's own side by side, on the same backend and data, in the same run."""
