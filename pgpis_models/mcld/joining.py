"""Several photos of one person as one Appearance. Ours: the paper reads one photo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    tokens, features = one_row(own.image), joined_reference([own.reference])
    if merged and texture_latent is not None:
        features = method.reference_features(tokens, texture_latent, reference)
    photos = len(own.image)
    face = own.face.repeat(1, photos, 1) if method.config.aggregation == "concat" else own.face
    return replace(own, image=tokens, texture=one_row(own.texture.expand(photos, -1, -1)), face=face, reference=features,
                   reference_parts=1 if merged else len(texture_latent))


def joined_reference(several: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Features of equal parts, each site -> (B, HW', C), all rows of all of them -> site -> (1, B HW' + .., C), for a
    `reference_parts` of their number. Raises ValueError for parts of other sites."""
    sites = list(several[0])
    if any(set(one) != set(sites) for one in several):
        raise ValueError(f"reference features at {[len(one) for one in several]} sites; expected the same sites in each")
    return {site: torch.cat([one_row(one[site]) for one in several], 1) for site in sites}


def appended_reference(encoded: Appearance, other: Mapping[str, Tensor]) -> Appearance:
    """The same, with a further part `other`, site -> (1 or B, HW', C), for each of its B rows: what another picture of the
    person shows. Raises ValueError where it has other features than the parts that are there."""
    parts = encoded.reference_parts
    apart = {site: (tuple(own.shape), tuple(other[site].shape) if site in other else None)
             for site, own in encoded.reference.items()
             if site not in other or (own.shape[1], own.shape[2]) != (other[site].shape[1] * parts, other[site].shape[2])}
    if apart or not encoded.reference:
        raise ValueError(f"the reference features to append differ at {dict(list(apart.items())[:3]) or 'all sites'} (here, "
                         "there); expected those of one network, of pictures of one size")
    rows = {site: max(len(own), len(other[site])) for site, own in encoded.reference.items()}
    return replace(encoded, reference_parts=parts + 1, reference={
        site: torch.cat([own.expand(rows[site], -1, -1), other[site].expand(rows[site], -1, -1)], 1)
        for site, own in encoded.reference.items()})


def mean_face(vectors: Tensor, quality: Tensor | None = None) -> Tensor:
    """Face embeddings (N, W) of one person -> (1, W), weighed by quality (N,); without one by their length, which grows
    with the quality of a face in recognition networks (Kim et al. 2022, AdaFace). Zeros, no face, do not count."""
    there = vectors.ne(0).any(-1)
    quality = vectors.norm(dim=-1) if quality is None else quality.to(vectors)
    quality = torch.where(there, quality, 0)
    if not bool(quality.sum() > 0):
        quality = there.to(vectors)
    return (quality / quality.sum().clamp_min(1e-12)) @ vectors[None]
