"""FPDM (arXiv 2412.07333): sizes, networks of both stages, inputs, and the converter of the published files."""
