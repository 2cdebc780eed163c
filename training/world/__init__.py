"""The demo world: drawn people, their autoencoder and base, without which training at full size is still whole."""
