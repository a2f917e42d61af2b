"""What the servers cost: CPU, waiting time and memory, each beside its target. docs/benchmarks.md says how."""
