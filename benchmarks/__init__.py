"""Benchmarks: `make bench NAME=<name> [DATA=<dir>]` runs one and writes `benchmarks/results/<name>.json`."""
