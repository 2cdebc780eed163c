"""Attention of the host's UNet with injections: what the ComfyUI binding installs at single transformer blocks.

All callables here read the rows of the current UNet call from extra_options["pgpis"] and do exactly what the host does
when there are none. They hold no tensors, so that cloning a MODEL stays cheap and nothing outlives a generation.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field

import torch
from comfy.ldm.modules.attention import optimized_attention, optimized_attention_masked
from torch import Tensor

from ...pgpis_models.unet.attention import lookup
from ...pgpis_models.unet.fitting import at_level, resized_tokens
from ...pgpis_models.unet.sites import SITE_BY_HOST, Site

KEY = "pgpis"                      # name of the call in transformer_options
FIRST_SPAN = "pgpis_first_frame_span"   # and the same of the first picture's: (how many, how many are a picture's own)
REFERENCE_SPAN = "pgpis_reference"  # where attn1's patch tells attn1's replacement which keys are reference tokens


@dataclass(frozen=True)
class Call:
    """One UNet call: its rows (R, ...) in x's order, the (height, width) of its latents, and what was served.

    reference_rows: for self-reference, the indices of rows that see it; None when all do. reference_parts: of how many equal
    parts its tokens are. control: the residuals of control
    networks as the host has them.
    visited, served: (attn1 | attn2, site) whose attention needed our replacement, and those where it ran.
    """

    rows: dict[str, Tensor]
    latent: tuple[int, int]
    reference_rows: list[int] | None = None
    control: dict | None = None
    reference_parts: int = 1
    visited: set[tuple[str, str]] = field(default_factory=set)
    served: set[tuple[str, str]] = field(default_factory=set)


def call_of(options: dict) -> Call | None:
    """The current call, or None when this call carries no injections."""
    return options.get(KEY)


def replace_context(hidden: Tensor, context: Tensor, value: Tensor, extra_options: dict) -> tuple[Tensor, ...]:
    """attn2 patch: the context of this site or stage in place of the tokens of the CONDITIONING, before projection."""
    call, site = call_of(extra_options), SITE_BY_HOST.get(tuple(extra_options.get("block", ())))
    if call is None or site is None:
        return hidden, context, value
    if (lookup(call.rows, "context_count", site.name, site.stage) is not None
            or f"query_bias.{site.name}" in call.rows or f"extra_scale.{site.name}" in call.rows):
        call.visited.add(("attn2", site.name))
    tokens = lookup(call.rows, "context", site.name, site.stage)
    if tokens is None:
        return hidden, context, value
    return hidden, tokens.to(hidden.dtype), tokens.to(hidden.dtype)


def append_reference(hidden: Tensor, context: Tensor, value: Tensor, extra_options: dict) -> tuple[Tensor, ...]:
    """attn1 patch: reference tokens behind the block's own, before projection.

    Rows that must not see them lose them again in `SelfAttention`, after projection. Of several parts, which weigh as one
    together, each weighs less where the block's own tokens come as often: exact, and without a mask, which another pack's
    attention would not take. They come twice where the first picture's tokens stand beside the block's own.
    """
    call, site = call_of(extra_options), SITE_BY_HOST.get(tuple(extra_options.get("block", ())))
    tokens = None if call is None or site is None else call.rows.get(f"self_reference.{site.name}")
    if tokens is None:
        return hidden, context, value
    call.visited.add(("attn1", site.name))
    tokens, own = tokens.to(context.dtype), [context] * call.reference_parts
    tokens = tokens.repeat(1, 2, 1) if FIRST_SPAN in extra_options else tokens
    length = call.reference_parts * context.shape[1]
    extra_options[REFERENCE_SPAN] = (length, length + tokens.shape[1])
    keys = torch.cat([*own, tokens], 1)
    return hidden, keys, keys if value is context else torch.cat([*[value] * call.reference_parts, tokens], 1)


class Replacement:
    """Base of both replacements: stands in for the host's attention and for a replacement that was there before.

    previous: the earlier replacement of this block, which then computes the attention (IPAdapter and the like).
    """

    def __init__(self, site: Site, previous: Callable | None = None) -> None:
        self.site, self.previous = site, previous

    def to(self, *args, **kwargs) -> Replacement:
        """The host moves patch objects with this; only the earlier replacement may have something to move."""
        if hasattr(self.previous, "to"):
            self.previous = self.previous.to(*args, **kwargs)
        return self

    def copied(self) -> Replacement:
        """Another one that does the same; what is added to either later does not reach the other."""
        return copy(self)

    def models(self) -> list:
        """Models that the host must load for this patch: those of the earlier replacement."""
        return self.previous.models() if hasattr(self.previous, "models") else []

    def attend(self, q: Tensor, k: Tensor, v: Tensor, extra_options: dict) -> Tensor:
        """The attention that would run without us, on projected tokens (R, L, D), (R, N, D), (R, N, D)."""
        if self.previous is not None:
            return self.previous(q, k, v, extra_options)
        return host_attention(q, k, v, extra_options)


class CrossAttention(Replacement):
    """attn2 replacement of one site: query bias, key counts, extra attention (same sums as `attention.cross_attention`).

    `add` follows the convention of IPAdapter_plus and its relatives, which append themselves to a replacement that
    they find on a block instead of overwriting it.
    """

    def __init__(self, site: Site, previous: Callable | None = None) -> None:
        super().__init__(site, previous)
        self.added: list[tuple[Callable, dict]] = []

    def copied(self) -> CrossAttention:
        """As of `Replacement`, with a list of its own."""
        other = copy(self)
        other.added = list(self.added)
        return other

    def add(self, callback: Callable, **kwargs) -> None:
        """Adds callback(out, q, k, v, extra_options, **kwargs) to the result, while the step's sigma is in
        kwargs["sigma_start"] .. kwargs["sigma_end"] where those are given."""
        self.added.append((callback, kwargs))

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra_options: dict) -> Tensor:
        call = call_of(extra_options)
        rows = {} if call is None else call.rows
        name = self.site.name
        if call is not None:
            call.served.add(("attn2", name))
        bias = rows.get(f"query_bias.{name}")
        if bias is not None:
            q = q + self._at_size_of(q, bias, call.latent, extra_options).to(q.dtype)
        count = lookup(rows, "context_count", name, self.site.stage)
        out = self.attend(q, k, v, extra_options) if count is None else self._counted(q, k, v, count, extra_options)
        scale = rows.get(f"extra_scale.{name}")
        if scale is not None:
            extra_k, extra_v = rows[f"extra_k.{name}"].to(q.dtype), rows[f"extra_v.{name}"].to(q.dtype)
            out = out + scale.to(out.dtype) * host_attention(q, extra_k, extra_v, extra_options)
        for callback, kwargs in self.added:
            if _in_range(extra_options, kwargs):
                out = out + callback(out, q, k, v, extra_options, **kwargs).to(out.dtype)
        return out

    def _at_size_of(self, q: Tensor, bias: Tensor, latent: tuple[int, int], extra_options: dict) -> Tensor:
        """The query bias (R, L, D) for queries whose number another node changed: deep shrink resizes the UNet's inside."""
        if bias.shape[1] == q.shape[1]:
            return bias
        size = tuple(extra_options["activations_shape"][-2:])
        if size[0] * size[1] != q.shape[1]:
            raise ValueError(f"the query bias of {self.site.name} has {bias.shape[1]} tokens, the block {q.shape[1]} "
                             f"queries for {size[0]}x{size[1]} cells; expected one for each cell. Another node merges or "
                             "cuts tokens of cross-attention: take it off this MODEL")
        return resized_tokens(bias, at_level(latent, self.site.level), size)

    def _counted(self, q: Tensor, k: Tensor, v: Tensor, count: Tensor, extra_options: dict) -> Tensor:
        """Row i sees only its first count[i] keys."""
        if self.previous is None:
            seen = torch.arange(k.shape[1], device=k.device) < count[:, None]  # (R, N)
            mask = torch.zeros(seen.shape, dtype=q.dtype, device=q.device).masked_fill_(~seen, -torch.inf)
            return host_attention(q, k, v, extra_options, mask[:, None].expand(-1, q.shape[1], -1))
        # Another pack's replacement takes no mask: run it once per count, on all rows since it may chunk by term.
        out = torch.empty_like(q)
        for number in count.unique().tolist():
            result = self.previous(q, k[:, :number], v[:, :number], extra_options)
            out = torch.where((count == number)[:, None, None], result, out)
        return out


class SelfAttention(Replacement):
    """attn1 replacement of one site: keys of reference tokens only for the rows that see them.

    The rows are split because zero keys would still take weight in the softmax.
    """

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra_options: dict) -> Tensor:
        call, span = call_of(extra_options), extra_options.get(REFERENCE_SPAN)
        if call is not None:
            call.served.add(("attn1", self.site.name))
        if call is None or span is None or call.reference_rows is None:
            return self.attend(q, k, v, extra_options)
        own_k, own_v = (without(t, span) for t in (k, v))
        bare = {name: value for name, value in extra_options.items() if name != REFERENCE_SPAN}
        if not call.reference_rows:
            return self.attend(q, own_k, own_v, bare)
        on = as_slice(call.reference_rows)
        off = as_slice([row for row in range(q.shape[0]) if row not in call.reference_rows])
        out = torch.empty_like(q)
        if self.previous is not None:  # on all rows, since it may chunk them by term
            out[on] = self.previous(q, k, v, extra_options)[on]
            out[off] = self.previous(q, own_k, own_v, bare)[off]
        else:
            out[on] = host_attention(q[on], k[on], v[on], extra_options)
            out[off] = host_attention(q[off], own_k[off], own_v[off], extra_options)
        return out


def without(tokens: Tensor, span: tuple[int, int]) -> Tensor:
    """Tokens (R, N, D) but those of the span; no copy where the span is at the end, as it is unless another pack appends."""
    if span[1] == tokens.shape[1]:
        return tokens[:, :span[0]]
    return torch.cat([tokens[:, :span[0]], tokens[:, span[1]:]], 1)


def as_slice(rows: list[int]) -> slice | list[int]:
    """Neighbouring rows as a slice, whose indexing copies nothing. The host puts the rows of one cond side by side."""
    return slice(rows[0], rows[-1] + 1) if rows and rows == list(range(rows[0], rows[-1] + 1)) else rows


def host_attention(q: Tensor, k: Tensor, v: Tensor, extra_options: dict, mask: Tensor | None = None) -> Tensor:
    """The host's own attention with the arguments that its CrossAttention module gives; mask (R, L, N) is additive."""
    arguments = {"attn_precision": extra_options.get("attn_precision"), "transformer_options": extra_options}
    if mask is None:
        return optimized_attention(q, k, v, extra_options["n_heads"], **arguments)
    return optimized_attention_masked(q, k, v, extra_options["n_heads"], mask, **arguments)


def _in_range(extra_options: dict, kwargs: dict) -> bool:
    start, end = kwargs.get("sigma_start"), kwargs.get("sigma_end")
    if (start is None and end is None) or "sigmas" not in extra_options:
        return True
    sigma = float(extra_options["sigmas"][0])
    return (start is None or sigma <= start) and (end is None or sigma >= end)
