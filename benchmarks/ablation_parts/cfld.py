"""CFLD's baselines of its table 3, as variants of the method: what the pack itself has no use for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from pgpis_models.cfld.config import CFLDConfig
from pgpis_models.cfld.model import CFLD, Appearance, Encoded
from pgpis_models.cfld.parts import HybridGranularityAppearanceEncoder
from pgpis_models.mcld.inputs import Clip, as_pixels
from pgpis_models.poses.factored import FactoredRasters
from pgpis_models.unet.guidance import Guidance
from pgpis_models.unet.injections import Injections


class FeaturesAsKeys(CFLD):
    """B1: keys and values are made of multi-scale features, nine maps for the nine sites on the way up; no prompt, and no
    query biases. The other stages see one zero token. Null is zeros everywhere."""

    def __init__(self, config: CFLDConfig = CFLDConfig()) -> None:
        super().__init__(config)
        widths = tuple(self.backbone.widths[index] for index in config.appearance_features)
        self.appearance_encoder = HybridGranularityAppearanceEncoder(
            widths, config.appearance_widths, config.appearance_heads, config.appearance_depth, (config.prompt_width,) * 3,
            config.appearance_zero_in)
        self.decoder = None

    def encode_appearance(self, source: Tensor) -> Appearance:
        """source (B, 3, H, W) in [-1, 1] -> Appearance whose query_bias holds the tokens (B, HW, C) of each site."""
        features = self.backbone(source)
        tokens = self.appearance_encoder(tuple(features[index] for index in self.config.appearance_features))
        return Appearance(features[-1].new_zeros(len(source), 1, self.config.prompt_width), tokens,
                          torch.zeros_like(self.learnable_vector[:, :1]))

    def guidance(self, encoded: Encoded, mode: str = "uc_down_full", **scales: float) -> Guidance:
        """As CFLD's; terms without appearance see zeros in place of the tokens."""
        chain = super().guidance(encoded, mode, **scales)
        return Guidance(tuple(replace(term, injections=_as_keys(
            term.injections, encoded.query_bias if term.injections.query_bias else _zeros(encoded.query_bias)))
            for term in chain.terms))

    def training_injections(self, source: Tensor, source_pose: Tensor | FactoredRasters | None,
                            target_pose: Tensor | FactoredRasters, drop_u: Tensor | None = None,
                            appearance: Appearance | None = None) -> Injections:
        """As CFLD's; a dropped item sees zeros."""
        made = super().training_injections(source, source_pose, target_pose, drop_u, appearance)
        items = len(made.down_residuals[0])
        drop_u = torch.rand(items, device=source.device) if drop_u is None else drop_u
        kept = (drop_u >= self.config.prompt_drop).view(-1, 1, 1)
        return _as_keys(made, {site: tokens * kept for site, tokens in made.query_bias.items()})


def _as_keys(made: Injections, tokens: Mapping[str, Tensor]) -> Injections:
    blank = torch.zeros_like(made.context["down"][:, :1])
    return replace(made, context={"down": blank, "mid": blank, **tokens}, query_bias={})


def _zeros(tokens: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {site: torch.zeros_like(value) for site, value in tokens.items()}


class DescriptionAsPrompt(CFLD):
    """B2: what an encoder that learnt to describe pictures says of the source is the prompt, one token through one linear
    layer, and no query biases. In the paper that is CLIP's image encoder; in the drawn world the reader, whose backbone the
    config starts from, with its deepest map averaged. It is not trained further."""

    def __init__(self, config: CFLDConfig = CFLDConfig()) -> None:
        super().__init__(config)
        self.appearance_encoder = None
        self.backbone.requires_grad_(False)
        self.decoder = nn.Linear(self.described_width, config.prompt_width)
        self.learnable_vector = nn.Parameter(torch.randn(1, 1, config.prompt_width))

    @property
    def described_width(self) -> int:
        return self.backbone.widths[-1]

    def describe(self, source: Tensor) -> Tensor:
        """source (B, 3, H, W) in [-1, 1] -> (B, described_width)."""
        return self.backbone(source)[-1].mean(1)

    def encode_appearance(self, source: Tensor) -> Appearance:
        """source (B, 3, H, W) in [-1, 1] -> Appearance without biases, of one token."""
        with torch.no_grad():
            described = self.describe(source)[:, None]
        return Appearance(self.decoder(described), {}, self.learnable_vector)


class ClipAsPrompt(DescriptionAsPrompt):
    """B2 on photos: the image embedding of CLIP ViT-L/14 (`mcld.inputs.ClipEncoder`, of the class), which the paper names
    without its size. The backbone is not used."""

    clip: Clip
    described_width = 768

    def describe(self, source: Tensor) -> Tensor:
        """source (B, 3, H, W) in [-1, 1] -> (B, 768)."""
        return self.clip(as_pixels(source)).to(source)


class PromptAlone(CFLD):
    """B3 and B4: the prompt of the perception-refined decoder, no query biases."""

    def __init__(self, config: CFLDConfig = CFLDConfig()) -> None:
        super().__init__(config)
        self.appearance_encoder = None

    def encode_appearance(self, source: Tensor) -> Appearance:
        """source (B, 3, H, W) in [-1, 1] -> Appearance without biases."""
        return Appearance(self.decoder(self.backbone(source)[-1]), {}, self.learnable_vector)


class MapAsPrompt(CFLD):
    """B5: the deepest map itself is the prompt, through one linear layer, in place of the perception-refined decoder."""

    def __init__(self, config: CFLDConfig = CFLDConfig()) -> None:
        super().__init__(config)
        rows, columns = self.backbone.grids[-1]
        self.decoder = nn.Linear(self.backbone.widths[-1], config.prompt_width)
        self.learnable_vector = nn.Parameter(torch.randn(1, rows * columns, config.prompt_width))
