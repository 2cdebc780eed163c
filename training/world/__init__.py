"""The demo world: drawn people of whom everything is known, and what stands for its giants: autoencoder, reader, base."""
