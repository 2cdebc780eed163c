"""Masks of garments, hair, skin and face by name, from body parts and the picture's own colours."""
