"""Applies injections to a diffusers UNet2DConditionModel: for training, evaluation and the command line.

Only public seams are used: attention processors, cross_attention_kwargs, the adapter and ControlNet residual
arguments, and two forward hooks. The UNet itself is diffusers' own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from .attention import attend, check_first_frame, cross_attention, first_rows, held, lookup, self_attention
from .control import run_control
from .control_branch import ControlBranch
from .control_diffusers import network_of
from .fitting import fitted_rows
from .guidance import Guidance
from .injections import Control, Rows, harmonise
from .sites import SITES, Site


class SiteProcessor:
    """Attention processor of one site, for its self- (cross=False) or cross-attention.

    Reads the rows from cross_attention_kwargs["pgpis"], so that gradient checkpointing sees the same tensors when it
    runs the block again. Without rows it is plain scaled dot product attention.
    """

    def __init__(self, site: Site, cross: bool) -> None:
        self.site, self.cross = site, cross

    def __call__(self, attn: nn.Module, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None,
                 attention_mask: Tensor | None = None, temb: Tensor | None = None,
                 pgpis: dict[str, Tensor] | None = None, first_frame: tuple[list[int], float] | None = None) -> Tensor:
        """hidden_states (R, HW, D), encoder_hidden_states (R, N, C) -> (R, HW, D)."""
        if attention_mask is not None:
            raise ValueError("an attention mask came from the UNet call; expected none (mask tokens by their count)")
        rows = pgpis or {}
        name, stage = self.site.name, self.site.stage
        query = attn.to_q(hidden_states)
        upcast = bool(getattr(attn, "upcast_attention", False))
        if self.cross:
            context = lookup(rows, "context", name, stage)
            context = encoder_hidden_states if context is None else context.to(hidden_states.dtype)
            out = cross_attention(query, attn.to_k(context), attn.to_v(context), attn.heads, rows, name, stage, upcast)
        else:
            key, value = attn.to_k(hidden_states), attn.to_v(hidden_states)
            tokens = rows.get(f"self_reference.{name}")
            if tokens is None:
                def seen(keys: Tensor, values: Tensor, _times: int) -> Tensor:
                    return attend(query, keys, values, attn.heads, upcast=upcast)
            else:
                tokens = tokens.to(hidden_states.dtype)
                reference = attn.to_k(tokens), attn.to_v(tokens)

                def seen(keys: Tensor, values: Tensor, times: int) -> Tensor:
                    shown = (each.repeat(1, times, 1) for each in reference)
                    return self_attention(query, keys, values, attn.heads, *shown, rows["self_reference_on"], upcast)
            out = seen(key, value, 1) if first_frame is None else held(seen, key, value, *first_frame)
        out = attn.to_out[1](attn.to_out[0](out))
        return out / attn.rescale_output_factor


class DiffusersBinding:
    """A diffusers UNet that understands injections. Install once; `release` gives the UNet back as it was."""

    def __init__(self, unet: nn.Module) -> None:
        self.unet = unet
        self._rows: dict[str, Tensor] = {}
        self._before = dict(unet.attn_processors)
        processors = dict(self._before)
        for site in SITES.values():
            for cross in (False, True):
                key = f"{site.diffusers}.transformer_blocks.0.attn{2 if cross else 1}.processor"
                if key not in processors:
                    raise ValueError(f"this UNet has no {key}; expected the Stable Diffusion 1.x/2.x topology: "
                                     "attention in three down blocks, the middle and three up blocks, one layer each")
                processors[key] = SiteProcessor(site, cross)
        unet.set_attn_processor(processors)
        self._hooks = [unet.conv_in.register_forward_hook(self._add("stem")),
                       unet.time_embedding.register_forward_hook(self._add("time_embedding"))]

    def _add(self, name: str) -> Callable:
        def hook(_module: nn.Module, _args: tuple, output: Tensor) -> Tensor | None:
            value = self._rows.get(name)
            return None if value is None else output + value.to(output.dtype)
        return hook

    def release(self) -> None:
        """Takes hooks and processors off again."""
        for hook in self._hooks:
            hook.remove()
        self.unet.set_attn_processor(self._before)

    def __call__(self, sample: Tensor, timestep: Tensor, rows: Mapping[str, Tensor], control: Control | None = None,
                 encoder_hidden_states: Tensor | None = None,
                 first_frame: tuple[list[int], float] | None = None) -> Tensor:
        """One UNet call. sample (R, 4, H, W), timestep (R,) or scalar, rows as of `Rows.stacked` (R, ...).

        encoder_hidden_states (R, N, C) is used at places that get no context. first_frame: rows and strength of
        `attention.held`. Returns the prediction (R, 4, H, W).
        """
        rows = fitted_rows(rows, tuple(sample.shape[-2:]))
        text = encoder_hidden_states
        if text is None:
            text = next((value for name, value in rows.items() if name.startswith("context.")), None)
        if text is None:
            raise ValueError("no context: neither the injections nor encoder_hidden_states give one")
        kwargs = {}
        residuals = [rows[f"down_residual.{i}"].to(sample.dtype) for i in range(4) if f"down_residual.{i}" in rows]
        if residuals:
            kwargs["down_intrablock_additional_residuals"] = residuals  # diffusers empties the list it is given
        if control is not None:
            if isinstance(control.network, ControlBranch):   # weights alone; here is what runs them
                control = replace(control, network=network_of(control.network))
            found = run_control(control, sample, timestep, rows)
            if found is not None:
                kwargs["down_block_additional_residuals"] = tuple(found[0])
                kwargs["mid_block_additional_residual"] = found[1]
        self._rows = rows
        shown = {"pgpis": rows} | ({} if first_frame is None else {"first_frame": first_frame})
        try:
            return self.unet(sample, timestep, encoder_hidden_states=text, cross_attention_kwargs=shown,
                             return_dict=False, **kwargs)[0]
        finally:
            self._rows = {}

    def denoiser(self, guidance: Guidance, batch: int,
                 first_frame: float = 0.0) -> Callable[[Tensor, Tensor | int], Tensor]:
        """f(x (B, 4, H, W), t) -> guided prediction (B, 4, H, W); all terms run as one call.

        Whatever does not depend on the timestep is prepared here, once. first_frame: 0..2, how far all rows see the first
        one of their term (`attention.held`).
        """
        check_first_frame(first_frame)
        guidance = guidance.needed()
        rows: Rows = harmonise([term.injections for term in guidance.terms], batch)
        stacked, terms = rows.stacked(), len(guidance.terms)
        frames = (first_rows(terms * batch, terms), first_frame) if first_frame and batch > 1 else None

        def denoise(x: Tensor, t: Tensor | int) -> Tensor:
            time = torch.as_tensor(t, device=x.device).expand(x.shape[0]).repeat(terms)
            made = self(x.repeat(terms, 1, 1, 1), time, stacked, rows.control, first_frame=frames)
            return guidance.combine(made.chunk(terms))
        return denoise


def swap_weights(unet: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Replaces parameters by name and returns the ones that were there, so that a second call undoes the first.

    Raises ValueError listing (at most ten of) the names that the UNet lacks or has in another shape.
    """
    own = dict(unet.named_parameters())
    wrong = [f"{name} {tuple(value.shape)}" + (f" (UNet has {tuple(own[name].shape)})" if name in own else " (unknown)")
             for name, value in weights.items() if name not in own or own[name].shape != value.shape]
    if wrong:
        raise ValueError(f"{len(wrong)} of {len(weights)} replaced weights do not fit this UNet: {wrong[:10]}; "
                         "expected a base of the width that the checkpoint was trained on")
    before = {}
    with torch.no_grad():
        for name, value in weights.items():
            before[name] = own[name].detach().clone()
            own[name].copy_(value)
    return before
