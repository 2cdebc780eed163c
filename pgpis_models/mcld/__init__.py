"""MCLD (CVPR 2025): sizes, networks, inputs, and the converter of the published files."""
