"""The parts of benchmarks/gpu.py: what is built, how it is timed, and a file per kind of measurement."""
