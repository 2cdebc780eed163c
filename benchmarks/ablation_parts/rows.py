"""The rows of each method's ablation: what differs in training and in sampling, and what the paper reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from .cfld import DescriptionAsPrompt, FeaturesAsKeys, MapAsPrompt, PromptAlone


@dataclass(frozen=True)
class Row:
    """what: in words. settings: of the training config, see `settings_of`. variant: in place of the method's class. shown:
    what of the conditions is left out in sampling (`hiding.py`, `making.py`). also: other ways to sample the same training,
    by name. paper: what the paper reports of it. usual: trained where no rows are named."""

    what: str
    settings: tuple[str, ...] = ()
    variant: type[nn.Module] | None = None
    shown: Mapping[str, Any] = field(default_factory=dict)
    also: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    paper: str = ""
    usual: bool = True


KEYS = "method.trainable_unet=[default]"   # keys and values on the way up, as in the paper
# QEN's queries, all rows have the same number: of drawn people, of photos
QUERIES = ({"all": 20, "local": 16, "shared": 4}, {"all": 80, "local": 64, "shared": 16})


def settings_of(row: Row, photos: bool) -> list[str]:
    """A row's settings of the training config, with its numbers for the kind of data."""
    return [setting.format(**QUERIES[photos]) for setting in row.settings]


def _qen(mask: str, shared: bool, what: str, paper: str) -> Row:
    numbers = ("{local}", "{shared}") if shared else ("{all}", "0")
    model = {"mask": mask, **dict(zip(("local_queries", "global_queries"), numbers, strict=True))}
    return Row(what, tuple(f"method.model.{name}={value}" for name, value in model.items()), paper=paper)


def _other(row: Row, *settings: str) -> Row:
    """A row that the paper does not have."""
    return replace(row, settings=row.settings + settings, usual=False)


ROWS: Mapping[str, Mapping[str, Row]] = {
    # Table 3 of CFLD, LPIPS and SSIM at 256x176. In B2 the demo's reader stands for CLIP's image encoder.
    "cfld": {
        "B1": Row("features as keys and values, no prompt", (KEYS,), FeaturesAsKeys, paper="LPIPS 0.2018, SSIM 0.6959"),
        "B2": Row("one description as the prompt, of an encoder that is not trained", (KEYS,), DescriptionAsPrompt,
                  paper="LPIPS 0.2099, SSIM 0.6944"),
        "B3": Row("decoder's prompt alone", (KEYS,), PromptAlone, paper="LPIPS 0.1615, SSIM 0.7293"),
        "B4": Row("the same, queries trained as well", (
            'method.trainable_unet=[default, "up_blocks.*attn2.to_q.weight"]',), PromptAlone,
            paper="LPIPS 0.1742, SSIM 0.7198"),
        "B5": Row("deepest map as the prompt, biases", (KEYS,), MapAsPrompt, paper="LPIPS 0.1912, SSIM 0.7038"),
        "full": Row("decoder's prompt, biases", (KEYS,), paper="LPIPS 0.1519, SSIM 0.7378")},
    # Table 3 of MCLD at 256x176. B1's reference network reads the photo, since it has no texture map; the paper does not
    # state what it read.
    "mcld": {
        "B1": Row("photo", ("method.model.aggregation=image",), paper="LPIPS 0.1629, SSIM 0.7371, PSNR 18.18"),
        "B2": Row("photo, texture in one context", ("method.model.aggregation=concat", "method.model.use_face=false"),
                  paper="LPIPS 0.1620, SSIM 0.7357, PSNR 18.20"),
        "B3": Row("photo, texture, face in one context", ("method.model.aggregation=concat",),
                  paper="LPIPS 0.1536, SSIM 0.7340, PSNR 18.03"),
        "B4": Row("texture, face, stage by stage", ("mcld.image_drop=1.0",), shown={"image": False},
                  paper="LPIPS 0.1619, SSIM 0.734, PSNR 18.16"),
        "B5": Row("photo, texture, stage by stage", ("method.model.use_face=false",),
                  paper="LPIPS 0.1483, SSIM 0.7499, PSNR 18.72"),
        "full": Row("photo, texture, face, stage by stage", paper="LPIPS 0.1482, SSIM 0.7511, PSNR 18.84")},
    # The paper's ablations are not defined in code; this is its one idea, with and without.
    "fpdm": {
        "without": Row("trained without the fusion embedding", ("method.model.fusion_drop=1.0",), shown={"fusion": False}),
        "full": Row("with the fusion embedding", also={
            "taken away": {"fusion": False}, "in place of the photo": {"tokens": False},
            "neither": {"fusion": False, "tokens": False}})},
    "fpdm_fusion": {
        "without": Row("contrastive loss of targets and fusions alone", ("fpdm.source_enhanced=false",)),
        "full": Row("sources join both sides of it")},
    # Table 3 of QEN at 256x176; its B4 may be read as eq. (9) on all queries too. Three blurs of the region: full has the
    # config's, 8 on drawn people and 24 on photos.
    "qen": {
        "B1": _qen("none", False, "local queries", "LPIPS 0.161, SSIM 0.724"),
        "B2": _qen("simple", False, "local queries, eq. (9)", "LPIPS 0.154, SSIM 0.735"),
        "B3": _qen("none", True, "local and global queries", "LPIPS 0.158, SSIM 0.731"),
        "B4": _qen("simple_local", True, "local and global queries, eq. (9) on the local", "LPIPS 0.151, SSIM 0.741"),
        "full": _qen("full", True, "local and global queries, eq. (5)", "LPIPS 0.150, SSIM 0.747"),
        "B4 all": _other(_qen("simple", True, "local and global queries, eq. (9) on all", "")),
        "blur 8": _other(_qen("full", True, "as full, region blurred by 8", ""), "method.model.mask_sigma=8"),
        "blur 16": _other(_qen("full", True, "as full, region blurred by 16", ""), "method.model.mask_sigma=16"),
        "blur 24": _other(_qen("full", True, "as full, region blurred by 24", ""), "method.model.mask_sigma=24")},
}
