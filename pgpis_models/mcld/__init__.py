"""MCLD (CVPR 2025): sizes, networks, loss, inputs, and the converter of the published files."""
