"""Training, evaluation and data preparation; never imported by the nodes."""
