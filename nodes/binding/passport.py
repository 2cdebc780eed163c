"""What travels beside the rows of a guidance term inside a CONDITIONING, and its checks against MODEL and latents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import comfy.hooks

from ...pgpis_models.unet.fitting import SLACK

PREFIX = "pgpis."         # of the names of our tensors among the host's model_conds
PASSPORT = PREFIX + "passport"
ROLE = "pgpis_role"       # of a CONDITIONING, beside its model_conds: which of the sampler's inputs it is for
CHANNELS = 4              # of the latents
CARRIED = "pgpis_checkpoints"   # in transformer_options: digest -> name of the checkpoints that a MODEL carries


@dataclass(frozen=True)
class Origin:
    """The checkpoint that something is of. name: for messages; digest: of its contents, equal for equal files."""

    name: str = "a PGPIS checkpoint"
    digest: str = ""


@dataclass(frozen=True)
class Passport:
    """What travels with the rows and is not a tensor; equal in all terms, so that the host batches them.

    latent_size: (height, width) of the latents that the rows were made for. origin: the checkpoint that made them.
    """

    latent_size: tuple[int, int]
    origin: Origin = Origin()


def check_aspect(size: tuple[int, int], passport: Passport) -> None:
    """Raises ValueError when the sampler's latents of (height, width) have another shape than the rows were made for; their
    size may differ."""
    height, width = passport.latent_size
    if abs(height * size[1] / size[0] - width) > SLACK and abs(width * size[0] / size[1] - height) > SLACK:
        raise ValueError(
            f"source and pose are encoded for latents of {width}x{height} (a picture of {width * 8}x{height * 8}), the "
            f"sampler runs {size[1]}x{size[0]} ({size[1] * 8}x{size[0] * 8}), which is another shape; expected "
            f"{width}:{height}, larger or smaller: connect the LATENT output of Apply PGPIS, or set the empty latent "
            f"to width {width * 8} and height {height * 8}")


def check_layout(shape: Sequence[int]) -> None:
    """Raises ValueError for latents that are not (B, 4, h, w)."""
    if len(shape) != 4 or shape[1] != CHANNELS:
        raise ValueError(f"the latents are {tuple(shape)}; expected (batch, {CHANNELS}, height, width), as Stable Diffusion "
                         "1.x and 2.x have them, not those of another model family or of a video. Connect the LATENT "
                         "output of Apply PGPIS, or encode the picture with the VAE of this MODEL")


def check_origin(origin: Origin, options: Mapping) -> None:
    """Raises ValueError when the MODEL that samples does not carry the checkpoint that the CONDITIONING is of.

    options: the MODEL's transformer_options.
    """
    carried = options.get(CARRIED, {})
    if origin.digest in carried:
        return
    came = f"that of {', '.join(carried.values())}" if carried else "one without a PGPIS method"
    raise ValueError(f"the CONDITIONING is of {origin.name}, the MODEL is {came}; expected both from one Apply PGPIS or "
                     "Pose Transfer. Connect its MODEL output to the sampler's model")


class Guard(comfy.hooks.TransformerOptionsHook):
    """Sees, when a run begins, whether the MODEL carries the checkpoint of the CONDITIONING that brings this hook. It adds
    nothing to the MODEL; without it a MODEL that knows nothing of rows would ignore them without a word."""

    def __init__(self, origin: Origin = Origin()) -> None:
        super().__init__({}, comfy.hooks.EnumHookScope.HookedOnly)
        self.origin = origin

    def clone(self) -> Guard:
        """Another hook that counts as the same."""
        other = super().clone()
        other.origin = self.origin
        return other

    def add_hook_patches(self, model, model_options: dict, target_dict: dict, registered) -> bool:
        """Called by the host at the start of a run."""
        check_origin(self.origin, model_options.get("transformer_options", {}))
        return super().add_hook_patches(model, model_options, target_dict, registered)


@lru_cache(maxsize=64)
def guards(origin: Origin) -> comfy.hooks.HookGroup:
    """The host's hooks of a CONDITIONING: one group for all that come from one checkpoint, since the host batches only what
    has the very same group."""
    group = comfy.hooks.HookGroup()
    group.add(Guard(origin))
    return group
