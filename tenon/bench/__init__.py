"""What `tenon bench` measures, one file per benchmark; docs/benchmarks.md says how to read the figures."""
