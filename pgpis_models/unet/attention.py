"""The attention that injected sites run, shared by the diffusers binding and (in its own spelling) the host's."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

FIRST_ALONE = 2   # the strength at which frames see the first one in place of their own


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int, count: Tensor | None = None,
           upcast: bool = False, bias: Tensor | None = None) -> Tensor:
    """softmax(Q K^T / sqrt(d)) V on projected tokens.

    query (R, L, D), key and value (R, N, D), heads divides D; count (R,) int64: only the first `count` keys of a
    row are seen. bias (R, N): added to the logits of a row's keys, in place of a count. upcast: in float32 whatever the
    tensors' type and the autocast around (Stable Diffusion 2.1, whose attention weights overflow in half precision).
    Returns (R, L, D) of the query's type.
    """
    if upcast:
        with torch.autocast(query.device.type, enabled=False):
            return attend(query.float(), key.float(), value.float(), heads, count, bias=bias).to(query.dtype)
    rows, length, width = query.shape
    q, k, v = (t.view(rows, -1, heads, width // heads).transpose(1, 2) for t in (query, key, value))
    mask = None if bias is None else bias[:, None, None, :].to(query.dtype)
    if count is not None:
        mask = (torch.arange(key.shape[1], device=key.device) < count[:, None])[:, None, None, :]  # (R, 1, 1, N)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return out.transpose(1, 2).reshape(rows, length, width)


def lookup(rows: dict[str, Tensor], field: str, site: str, stage: str) -> Tensor | None:
    """The row tensor (R, ..) of a field at a site: the site's own, else its stage's, else None."""
    value = rows.get(f"{field}.{site}")
    return rows.get(f"{field}.{stage}") if value is None else value


def cross_attention(query: Tensor, key: Tensor, value: Tensor, heads: int, rows: dict[str, Tensor], site: str,
                    stage: str, upcast: bool = False) -> Tensor:
    """Cross-attention of one site with its injections, on projected tokens.

    query (R, HW, D), key and value (R, N, D). Adds the query bias (CFLD: hybrid-granularity attention) before the
    heads are split, and the extra attention (MCLD eq. 8) after. upcast: see `attend`. Returns (R, HW, D), to go through
    to_out.
    """
    bias = rows.get(f"query_bias.{site}")
    if bias is not None:
        query = query + bias.to(query.dtype)
    out = attend(query, key, value, heads, lookup(rows, "context_count", site, stage), upcast)
    scale = rows.get(f"extra_scale.{site}")
    if scale is not None:
        extra_key, extra_value = rows[f"extra_k.{site}"], rows[f"extra_v.{site}"]
        extra = attend(query, extra_key.to(query.dtype), extra_value.to(query.dtype), heads, upcast=upcast)
        out = out + scale.to(out.dtype) * extra
    return out


def self_attention(query: Tensor, key: Tensor, value: Tensor, heads: int, reference_key: Tensor,
                   reference_value: Tensor, on: Tensor, upcast: bool = False) -> Tensor:
    """Self-attention whose rows with `on` also see reference tokens; the other rows see only their own.

    query, key, value (R, HW, D); reference_* (R, HW', D); on (R,) int64: 0, or of how many parts the reference tokens are,
    each of which weighs that much less (the logarithm of a weight in the softmax is an addition to the logit); upcast: see
    `attend`. On the CPU rows are split, so that nothing is computed in vain; elsewhere reference keys are masked, since a
    split would wait for the device. Zero keys would still take weight in the softmax. Returns (R, HW, D).
    """
    if on.device.type != "cpu":
        return _with_reference(query, key, value, heads, reference_key, reference_value, on, upcast)
    extended = on.bool()
    if bool(extended.all()):
        return _with_reference(query, key, value, heads, reference_key, reference_value, on, upcast)
    out = torch.empty_like(query)
    plain = ~extended
    out[plain] = attend(query[plain], key[plain], value[plain], heads, upcast=upcast)
    if bool(extended.any()):
        rows = (each[extended] for each in (query, key, value, reference_key, reference_value, on))
        query, key, value, reference_key, reference_value, on = rows
        out[extended] = _with_reference(query, key, value, heads, reference_key, reference_value, on, upcast)
    return out


def _with_reference(query: Tensor, key: Tensor, value: Tensor, heads: int, reference_key: Tensor, reference_value: Tensor,
                    on: Tensor, upcast: bool) -> Tensor:
    """Arguments of `self_attention`, all rows in one call."""
    keys, values = torch.cat([key, reference_key], 1), torch.cat([value, reference_value], 1)
    if on.device.type == "cpu" and bool((on == 1).all()):
        return attend(query, keys, values, heads, upcast=upcast)
    weight = torch.where(on > 0, -on.clamp_min(1).float().log(), -torch.inf)[:, None]   # (R, 1)
    bias = torch.cat([torch.zeros_like(weight).expand(-1, key.shape[1]), weight.expand(-1, reference_key.shape[1])], 1)
    return attend(query, keys, values, heads, upcast=upcast, bias=bias)


def check_first_frame(strength: float) -> None:
    """Raises ValueError for a strength of `held` out of range."""
    if not 0 <= strength <= FIRST_ALONE:
        raise ValueError(f"the first frame's strength is {strength}; expected 0 to {FIRST_ALONE}")


def first_rows(rows: int, groups: int) -> list[int]:
    """For each of R rows, which are `groups` batches one after another, the first row of its batch."""
    batch = rows // groups
    return [row // batch * batch for row in range(rows)]


def held(seen: Callable[[Tensor, Tensor, int], Tensor], key: Tensor, value: Tensor, first: list[int],
         strength: float) -> Tensor:
    """Self-attention of frames that see the first frame, so that what it made up stays: beside their own at strength 1, in
    place of their own at 2, as Khachatryan et al. 2023, "Text2Video-Zero", have it.

    seen: f(key, value, times) -> the attention (R, HW, D) of these queries, to which reference tokens come so many times:
    twice beside both frames, so that they keep their share; key, value (R, HW, D): the rows' own; first: of each row the row
    whose keys it sees too; strength: 0..2, mixed between whole ones, 0 the rows' own alone. For the first frame itself
    nothing changes: to see everything twice is to see it once.
    """
    def at(whole: int) -> Tensor:
        if whole == 1:
            return seen(torch.cat([key, key[first]], 1), torch.cat([value, value[first]], 1), 2)
        return seen(key[first], value[first], 1) if whole == FIRST_ALONE else seen(key, value, 1)

    below = int(strength)
    return at(below) if strength == below else torch.lerp(at(below), at(below + 1), strength - below)
