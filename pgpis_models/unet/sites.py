"""The 16 transformer blocks of the Stable Diffusion 1.x/2.x UNet, named once.

Every method speaks of places in the UNet by these names; each binding looks up its own spelling here.
"""

from __future__ import annotations

from dataclasses import dataclass

STAGES = ("down", "mid", "up")


@dataclass(frozen=True)
class Site:
    """One transformer block of the UNet.

    name: ours, `<stage>.<block>.<layer>` (`mid.0` for the middle).
    diffusers: path of the Transformer2DModel inside UNet2DConditionModel.
    host: (kind, index) as the native ComfyUI UNet puts it into transformer_options["block"].
    level: 0 is the full latent resolution, each next level is halved.
    """

    name: str
    stage: str
    diffusers: str
    host: tuple[str, int]
    level: int


def _sites() -> dict[str, Site]:
    sites = []
    for block in range(3):  # the fourth down block has no attention
        for layer in range(2):
            sites.append(Site(f"down.{block}.{layer}", "down", f"down_blocks.{block}.attentions.{layer}",
                              ("input", 1 + 3 * block + layer), block))
    sites.append(Site("mid.0", "mid", "mid_block.attentions.0", ("middle", 0), 3))
    for block in range(1, 4):  # the first up block has no attention
        for layer in range(3):
            sites.append(Site(f"up.{block}.{layer}", "up", f"up_blocks.{block}.attentions.{layer}",
                              ("output", 3 * block + layer), 3 - block))
    return {site.name: site for site in sites}


SITES: dict[str, Site] = _sites()
SITE_BY_HOST: dict[tuple[str, int], Site] = {site.host: site for site in SITES.values()}

# Host input blocks whose output carries the residual of down block 0..3: the last (resnet, attention) pair of
# that block, before its downsampler, so that the skip connection carries the sum too.
DOWN_BLOCK_SLOTS = (2, 5, 8, 11)
STEM_SLOT = 0  # host input block that holds conv_in
SKIP_COUNT = 12  # skip connections of the UNet, in the order in which the down path makes them


def sites_of(key: str) -> tuple[str, ...]:
    """The site names that a key of an injection stands for: a site itself, or a stage (`down`, `mid`, `up`).

    Raises ValueError for any other key.
    """
    if key in SITES:
        return (key,)
    if key in STAGES:
        return tuple(name for name, site in SITES.items() if site.stage == key)
    raise ValueError(f"unknown place in the UNet: {key!r}; expected a stage {STAGES} or a site of {tuple(SITES)}")
