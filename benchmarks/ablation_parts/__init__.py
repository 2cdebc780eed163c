"""The parts of benchmarks/ablation.py: the rows of each method's table, CFLD's baselines, and how pictures are made."""
