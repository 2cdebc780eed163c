"""The first picture of a batch seen by all others: what `pgpis_models.unet.attention.held` is on the host's MODEL.

The first picture's tokens go in front of the keys of each self-attention, or in their place, before projection, so that what
is counted from there on only shifts. Each guidance term has a first picture of its own; the host says how many terms it put
into a call.
"""

from __future__ import annotations

import comfy.model_patcher
import torch
from torch import Tensor

from ...pgpis_models.unet.attention import FIRST_ALONE, check_first_frame, first_rows
from ...pgpis_models.unet.sites import SITE_BY_HOST, SITES, Site
from .attention import FIRST_SPAN, REFERENCE_SPAN, Replacement, call_of
from .model import install
from .weights import check_topology

KEY = "pgpis_first_frame"        # the strength, in the MODEL's transformer_options


def hold_first_frame(model: comfy.model_patcher.ModelPatcher, strength: float) -> comfy.model_patcher.ModelPatcher:
    """A clone of the MODEL whose self-attention sees the first picture of the batch too; strength 0 to 2, 0 takes it off.

    Raises ValueError for other strengths and for a MODEL of another topology.
    """
    check_first_frame(strength)
    check_topology(model)
    model = model.clone()
    options = model.model_options["transformer_options"]
    options[KEY] = strength
    if append_first not in options.get("patches", {}).get("attn1_patch", ()):
        model.set_model_attn1_patch(append_first)
    if strength % 1:   # whole ones need nothing but the keys
        for site in SITES.values():
            install(model, "attn1", site, FirstFrame)
    return model


def strength_on(model: comfy.model_patcher.ModelPatcher) -> float:
    """How far a MODEL's pictures see the first one."""
    return model.model_options["transformer_options"].get(KEY, 0.0)


def append_first(hidden: Tensor, context: Tensor, value: Tensor, extra_options: dict) -> tuple[Tensor, ...]:
    """attn1 patch: the first picture's tokens before the block's keys, or at FIRST_ALONE in their place. Reference tokens
    that follow both come twice, so that they keep their share; the block's keys may come several times before them, and the
    first picture's do so too."""
    rows, terms = hidden.shape[0], len(extra_options.get("cond_or_uncond", ())) or 1
    site = SITE_BY_HOST.get(tuple(extra_options.get("block", ())))
    if not extra_options.get(KEY) or site is None or rows <= terms or rows % terms:
        return hidden, context, value
    first, parts, alone = hidden[first_rows(rows, terms)], 1, extra_options[KEY] == FIRST_ALONE
    start = end = own = context.shape[1]
    if REFERENCE_SPAN in extra_options:
        (start, end), parts = extra_options[REFERENCE_SPAN], parts_of(extra_options, site)
        own = start // parts
        before = parts * (first.shape[1] + (0 if alone else own))
        extra_options[REFERENCE_SPAN] = before, before + (end - start) * (1 if alone else 2)
    if not alone:
        extra_options[FIRST_SPAN] = first.shape[1], own

    def joined(tokens: Tensor) -> Tensor:
        shown = first.to(tokens.dtype)
        if alone:
            return torch.cat([*[shown] * parts, tokens[:, start:]], 1)
        pieces = [piece for each in tokens[:, :start].split(own, 1) for piece in (shown, each)]
        return torch.cat([*pieces, tokens[:, start:end], tokens[:, start:]], 1)
    keys = joined(context)
    return hidden, keys, keys if value is context else joined(value)


def parts_of(extra_options: dict, site: Site) -> int:
    """How often the block's own keys come, as `attention.append_reference` repeats them."""
    call = call_of(extra_options)
    return 1 if call is None or f"self_reference.{site.name}" not in call.rows else call.reference_parts


class FirstFrame(Replacement):
    """attn1 replacement of one site for a strength between whole ones: a mixture of the attention with the keys of both, and
    with one picture's own alone, below 1 the block's, above it the first one's."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra_options: dict) -> Tensor:
        both = self.attend(q, k, v, extra_options)
        if FIRST_SPAN not in extra_options:
            return both
        (count, own), parts = extra_options[FIRST_SPAN], parts_of(extra_options, self.site)
        joined, options, strength = parts * (count + own), {**extra_options}, extra_options[KEY]
        kept = slice(count, None) if strength < 1 else slice(count)
        start, end = options.get(REFERENCE_SPAN, (joined, joined))
        half = (start + end) // 2   # the reference tokens' second time begins here
        if REFERENCE_SPAN in options:
            before = parts * (own if strength < 1 else count)
            options[REFERENCE_SPAN] = before, before + half - start

        def of_one(tokens: Tensor) -> Tensor:
            alone = tokens[:, :joined].unflatten(1, (parts, count + own))[:, :, kept].flatten(1, 2)
            return torch.cat([alone, tokens[:, start:half], tokens[:, end:]], 1)
        return torch.lerp(self.attend(q, of_one(k), of_one(v), options), both, 1 - abs(1 - strength))
