"""What served rounds, aggregation and import cost beside the plainest program that does the same.

`make bench` runs it; docs/benchmarks.md tells what it measured.
"""
