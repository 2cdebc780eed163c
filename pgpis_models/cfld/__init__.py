"""CFLD (CVPR 2024): sizes, networks, inputs, and the converter of the published files."""
