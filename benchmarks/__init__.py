"""Benchmarks: named workloads, peers on the same input in the same run, and the bars that the project is held to."""
