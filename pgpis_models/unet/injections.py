"""Injections: what a method tells a UNet, as plain tensors with a place to go to.

A method emits one `Injections` per guidance term. `harmonise` brings the terms of a chain to the same set of
flat, named row tensors, so that all terms run as one batched UNet call. Both bindings (diffusers, native host)
consume exactly these rows, which is why they give the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .sites import SITES, STAGES, sites_of


@dataclass(frozen=True)
class ExtraAttention:
    """A second cross-attention whose result is added to the first (MCLD's multi-focal conditioning aggregation).

    tokens: (B, N, C); to_k, to_v: (D, C) projection weights without bias, D the width of the site; scale: factor
    of the added result.
    """

    tokens: Tensor
    to_k: Tensor
    to_v: Tensor
    scale: float = 1.0


@dataclass(frozen=True)
class Control:
    """A network that runs at every step beside the UNet (ControlNet).

    network: a `control_branch.ControlBranch`, which each binding runs its own way, or anything that is called as
    network(sample (R, 4, H, W), timestep (R,), **inputs) and returns (12 skip residuals in the order of the down path,
    middle residual). inputs: name -> (B, ...) tensors that do not depend on the step.
    scale: factor of the residuals. start, end: the share of the sampling, 0..1, from which and up to which it runs.
    on: (B,) which rows have it, 1 or 0; all when None.
    """

    network: Callable[..., tuple[Sequence[Tensor], Tensor]]
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    scale: float = 1.0
    start: float = 0.0
    end: float = 1.0
    on: Tensor | None = None


@dataclass(frozen=True)
class Injections:
    """All that one guidance term adds to a UNet. Every tensor starts with the batch axis B (or 1).

    context: stage or site -> (B, N, C), keys and values of cross-attention in place of the text tokens.
    extra_attention: site -> ExtraAttention, added to the result of that cross-attention.
    query_bias: site -> (B, HW, C), added to the projected cross-attention query, before the heads are split.
    self_reference: site -> (B, HW', C), appended to keys and values of self-attention before their projection.
    self_reference_parts: of how many equal parts (photos of one person) those tokens are; together they weigh in the softmax
        as one part would, so that a part that comes twice changes nothing.
    stem: (B, C, H, W), added to the output of conv_in.
    down_residuals: up to four of (B, C, h, w), added at the end of down block i before its downsampler.
    time_embedding: (B, D), added to the timestep embedding.
    control: a network run at every step, giving skip and middle residuals.
    """

    context: Mapping[str, Tensor] = field(default_factory=dict)
    extra_attention: Mapping[str, ExtraAttention] = field(default_factory=dict)
    query_bias: Mapping[str, Tensor] = field(default_factory=dict)
    self_reference: Mapping[str, Tensor] = field(default_factory=dict)
    self_reference_parts: int = 1
    stem: Tensor | None = None
    down_residuals: tuple[Tensor, ...] = ()
    time_embedding: Tensor | None = None
    control: Control | None = None

    def __post_init__(self) -> None:
        for key in self.context:
            sites_of(key)
        for name in ("extra_attention", "query_bias", "self_reference"):
            unknown = [key for key in getattr(self, name) if key not in SITES]
            if unknown:
                raise ValueError(f"{name} names {unknown}; expected sites of {tuple(SITES)}")
        if self.self_reference_parts < 1:
            raise ValueError(f"self_reference_parts is {self.self_reference_parts}; expected 1 or more")
        if len(self.down_residuals) > 4:
            raise ValueError(f"down_residuals has {len(self.down_residuals)} maps; a UNet has four down blocks")

    def batch_sizes(self) -> set[int]:
        """The batch sizes of all tensors, of which at most one may differ from 1."""
        return {tensor.shape[0] for tensor in _tensors(self)}

    def map(self, function: Callable[[Tensor], Tensor]) -> Injections:
        """The same injections with `function` applied to every per-row tensor (move, cast, repeat, interpolate)."""
        return replace(
            self,
            context={k: function(v) for k, v in self.context.items()},
            extra_attention={k: replace(v, tokens=function(v.tokens)) for k, v in self.extra_attention.items()},
            query_bias={k: function(v) for k, v in self.query_bias.items()},
            self_reference={k: function(v) for k, v in self.self_reference.items()},
            stem=None if self.stem is None else function(self.stem),
            down_residuals=tuple(function(v) for v in self.down_residuals),
            time_embedding=None if self.time_embedding is None else function(self.time_embedding),
            control=None if self.control is None else replace(
                self.control, inputs={k: function(v) for k, v in self.control.inputs.items()},
                on=None if self.control.on is None else function(self.control.on)),
        )


def everywhere(tokens: Tensor) -> dict[str, Tensor]:
    """The same context tokens (B, N, C) for all three stages."""
    return {stage: tokens for stage in STAGES}


def blend(first: Injections, second: Injections, weight: float) -> Injections:
    """(1 - weight) * first + weight * second, tensor by tensor (CFLD section 4.6: prompt and all query biases).

    Raises ValueError when the two do not carry the same fields with the same shapes.
    """
    left, right = list(_tensors(first)), list(_tensors(second))
    if _signature(first) != _signature(second):
        raise ValueError("cannot blend injections of different make: "
                         f"{_signature(first)} against {_signature(second)}; use two of the same checkpoint and size")
    mixed = iter([torch.lerp(a.float(), b.float(), weight).to(a.dtype) for a, b in zip(left, right)])
    return first.map(lambda _: next(mixed))


def _tensors(injections: Injections):
    """All per-row tensors in the order in which `Injections.map` visits them."""
    seen: list[Tensor] = []
    injections.map(lambda tensor: seen.append(tensor) or tensor)
    return seen


def _signature(injections: Injections) -> dict[str, object]:
    signature: dict[str, object] = {}
    for item in fields(Injections):
        value = getattr(injections, item.name)
        if isinstance(value, Mapping) and value:
            signature[item.name] = {k: tuple((v.tokens if isinstance(v, ExtraAttention) else v).shape[1:])
                                    for k, v in value.items()}
        elif isinstance(value, Tensor):
            signature[item.name] = tuple(value.shape[1:])
        elif isinstance(value, tuple) and value:
            signature[item.name] = [tuple(v.shape[1:]) for v in value]
        elif isinstance(value, Control):
            signature[item.name] = {k: tuple(v.shape[1:]) for k, v in value.inputs.items()}
    return signature


# --- rows: the flat form that both bindings consume ---------------------------------------------------------

@dataclass(frozen=True)
class Rows:
    """Harmonised terms: one dict of named tensors per term, all with the same names and shapes.

    Names: `context.<site|stage>` (B, N, C) and, where terms differ in N, `context_count.<...>` (B,) int64;
    `query_bias.<site>`; `extra_k.<site>`, `extra_v.<site>` (B, N, D) and `extra_scale.<site>` (B, 1, 1);
    `self_reference.<site>` and `self_reference_on` (B,) int64, of how many parts they are, 0 where they are not seen;
    `stem`; `down_residual.<i>`; `time_embedding`;
    `control.<input>` and `control_on` (B,) int64. `control` is the network itself, shared by all terms.
    """

    terms: tuple[dict[str, Tensor], ...]
    control: Control | None = None

    def stacked(self) -> dict[str, Tensor]:
        """Rows of all terms, term after term: name -> (T * B, ...)."""
        return {name: torch.cat([term[name] for term in self.terms]) for name in self.terms[0]}


def harmonise(terms: Sequence[Injections], batch: int) -> Rows:
    """Brings terms to the same flat rows of batch size `batch`.

    A field that a term lacks while another has it becomes zeros where zeros mean "nothing" exactly (additive
    fields), and an off flag where they do not (tokens seen by a softmax still take weight). Projections of
    extra-attention tokens are made here, once per generation.

    Raises ValueError for batch sizes other than 1 or `batch`, for a context given by some terms only, and for two
    different control networks in one chain.
    """
    flat = [_flatten(term, batch) for term in terms]
    for where in sorted({name for rows in flat for name in rows if name.startswith("context.")}):
        _match_context(where, flat)
    names = sorted({name for rows in flat for name in rows})
    for name in names:
        example = next(rows[name] for rows in flat if name in rows)
        for rows in flat:
            if name not in rows:
                rows[name] = torch.zeros_like(example)
            elif rows[name].shape != example.shape:
                raise ValueError(f"{name} has shape {tuple(rows[name].shape)} in one guidance term and "
                                 f"{tuple(example.shape)} in another; terms of one chain must agree")
    controls = [term.control for term in terms if term.control is not None]
    if any(_how(control) != _how(controls[0]) for control in controls):
        raise ValueError("two control networks in one guidance chain, or one with two strengths or durations; expected one "
                         "network shared by its terms")
    return Rows(tuple({name: rows[name] for name in names} for rows in flat), controls[0] if controls else None)


def _how(control: Control) -> tuple:
    return id(control.network), control.scale, control.start, control.end


def _flatten(term: Injections, batch: int) -> dict[str, Tensor]:
    wrong = {size for size in term.batch_sizes() if size not in (1, batch)}
    if wrong:
        raise ValueError(f"injections have batch size {sorted(wrong)}, the latents {batch}; expected 1 or {batch}")
    term = term.map(lambda tensor: tensor.expand(batch, *tensor.shape[1:]))
    rows: dict[str, Tensor] = {f"context.{key}": tokens for key, tokens in term.context.items()}
    for site, bias in term.query_bias.items():
        rows[f"query_bias.{site}"] = bias
    for site, extra in term.extra_attention.items():
        rows[f"extra_k.{site}"] = F.linear(extra.tokens, extra.to_k)
        rows[f"extra_v.{site}"] = F.linear(extra.tokens, extra.to_v)
        rows[f"extra_scale.{site}"] = torch.full((batch, 1, 1), extra.scale, dtype=extra.tokens.dtype,
                                                 device=extra.tokens.device)
    for site, tokens in term.self_reference.items():
        rows[f"self_reference.{site}"] = tokens
        rows["self_reference_on"] = torch.full((batch,), term.self_reference_parts, dtype=torch.int64, device=tokens.device)
    if term.stem is not None:
        rows["stem"] = term.stem
    for index, residual in enumerate(term.down_residuals):
        rows[f"down_residual.{index}"] = residual
    if term.time_embedding is not None:
        rows["time_embedding"] = term.time_embedding
    if term.control is not None:
        for name, value in term.control.inputs.items():
            rows[f"control.{name}"] = value
        device = next(iter(term.control.inputs.values())).device if term.control.inputs else None
        on = term.control.on
        rows["control_on"] = torch.ones(batch, dtype=torch.int64, device=device) if on is None else on.to(torch.int64)
    return rows


def _match_context(where: str, flat: list[dict[str, Tensor]]) -> None:
    """Pads the tokens at one place to the longest term and writes the counts, if terms differ in length."""
    lacking = [index for index, rows in enumerate(flat) if where not in rows]
    if lacking:
        raise ValueError(f"{where} is missing in guidance terms {lacking} while others give it; "
                         "expected every term of the chain to give a context at the same places")
    lengths = [rows[where].shape[1] for rows in flat]
    if len(set(lengths)) == 1:
        return
    for rows, length in zip(flat, lengths):
        tokens = rows[where]
        rows[where] = F.pad(tokens, (0, 0, 0, max(lengths) - length))
        count = torch.full((tokens.shape[0],), length, dtype=torch.int64, device=tokens.device)
        rows[where.replace("context.", "context_count.", 1)] = count
