"""What travels beside the rows of a guidance term inside a CONDITIONING, and the check of the sampler's latents."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

PREFIX = "pgpis."         # of the names of our tensors among the host's model_conds
PASSPORT = PREFIX + "passport"


@dataclass(frozen=True)
class Passport:
    """What travels with the rows and is not a tensor; equal in all terms, so that the host batches them.

    latent_size: (height, width) of the latents that the rows were made for. batch: rows per term.
    """

    latent_size: tuple[int, int]
    batch: int


def check_shape(x: Tensor, passport: Passport, options: dict) -> None:
    """Raises ValueError when the sampler's latents x (R, 4, h, w) are not those that the rows were made for."""
    height, width = passport.latent_size
    if tuple(x.shape[-2:]) != (height, width):
        raise ValueError(
            f"source and pose are encoded for latents of {width}x{height} (a picture of {width * 8}x{height * 8}), the "
            f"sampler runs {x.shape[-1]}x{x.shape[-2]} ({x.shape[-1] * 8}x{x.shape[-2] * 8}); connect the LATENT output of "
            f"Apply PGPIS, or set the empty latent to width {width * 8} and height {height * 8}, and use no areas")
    per_term = x.shape[0] // max(1, len(options.get("cond_or_uncond", [0])))
    if per_term % passport.batch:
        raise ValueError(f"{passport.batch} source and pose pairs are encoded, the sampler runs {per_term} latents; "
                         f"expected {passport.batch} or a multiple: connect the LATENT output of Apply PGPIS")
