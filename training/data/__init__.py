"""Data sets: the mannequin demo world and readers of published data."""
