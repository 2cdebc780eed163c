"""A photo of one's own: a mannequin small at one side."""

from __future__ import annotations

from functools import lru_cache

from tests.helpers.photos import Photo, figure, photo

SIZE = (1536, 1024)
SEED = 3


@lru_cache(maxsize=1)
def own_photo() -> Photo:
    """1024 x 1536 pixels, a ground that is plain but for noise, and a mannequin of a quarter of its height at the left."""
    return photo(SIZE, (figure(3), 20, 900), noise=6)
