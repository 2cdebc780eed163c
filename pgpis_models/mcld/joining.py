"""Several photos of one person as one Appearance. Ours: the paper reads one photo."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..parts.joining import one_row
from .model import MCLD, Appearance
from .reference import ReferenceNetwork


def appearance_of_one(method: MCLD, image: Tensor, texture: Tensor | None = None, texture_latent: Tensor | None = None,
                      face: Tensor | None = None, reference: ReferenceNetwork | None = None) -> Appearance:
    """Arguments as of `MCLD.encode_appearance`, of N photos of one person -> an Appearance of batch 1.

    The tokens of all photos stand side by side, in the cross-attentions of both networks. texture, texture_latent: one
    merged texture map, whose tokens come as often as there are photos, so that both keep their weights; or N, whose tokens
    stand side by side as well and whose reference features are the parts of one self-reference. face: one embedding, as of
    `mean_face`. One photo given N times is that photo given once.
    """
    merged = texture_latent is None or len(texture_latent) == 1
    own = method.encode_appearance(image, texture, None if merged else texture_latent, face, reference)
    tokens, features = one_row(own.image), {site: one_row(value) for site, value in own.reference.items()}
    if merged and texture_latent is not None:
        features = method.reference_features(tokens, texture_latent, reference)
    photos = len(own.image)
    face = own.face.repeat(1, photos, 1) if method.config.aggregation == "concat" else own.face
    return replace(own, image=tokens, texture=one_row(own.texture.expand(photos, -1, -1)), face=face, reference=features,
                   reference_parts=1 if merged else len(texture_latent))


def mean_face(vectors: Tensor, quality: Tensor | None = None) -> Tensor:
    """Face embeddings (N, W) of one person -> (1, W), weighed by quality (N,); without one by their length, which grows
    with the quality of a face in recognition networks (Kim et al. 2022, AdaFace). Zeros, no face, do not count."""
    there = vectors.ne(0).any(-1)
    quality = vectors.norm(dim=-1) if quality is None else quality.to(vectors)
    quality = torch.where(there, quality, 0)
    if not bool(quality.sum() > 0):
        quality = there.to(vectors)
    return (quality / quality.sum().clamp_min(1e-12)) @ vectors[None]
