"""The host's native MODEL: injections, guidance, weights and control applied to it."""
