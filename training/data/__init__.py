"""Readers of photos and of pairs of them, and what is made of these before training."""
