"""The demo world: drawn people, their autoencoder and base. Without this folder full-size training is whole."""
