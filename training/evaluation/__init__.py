"""How pictures are measured: the papers' protocols, networks, faces and reports."""
