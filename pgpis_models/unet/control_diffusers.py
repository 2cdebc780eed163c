"""A control branch on diffusers' ControlNetModel: for training, evaluation and the command line."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .attention import attend
from .control_branch import ControlBranch, pose_inputs
from .fitting import at_level, fitted_map
from .masked_attention import pose_masked_attention
from .sites import SITES

HELD = "_diffusers_network"   # attribute of the branch that keeps its network


class BranchProcessor:
    """Attention processor of the branch: plain self-attention, pose-masked cross-attention.

    The masks come by level through cross_attention_kwargs["seen"], so that gradient checkpointing sees the same ones.
    """

    def __init__(self, level: int, cross: bool) -> None:
        self.level, self.cross = level, cross

    def __call__(self, attn: nn.Module, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None,
                 attention_mask: Tensor | None = None, temb: Tensor | None = None,
                 seen: list[Tensor | None] | None = None) -> Tensor:
        """hidden_states (R, HW, D), encoder_hidden_states (R, N, C), seen by level -> (R, HW, D)."""
        context = encoder_hidden_states if self.cross else hidden_states
        query, key, value = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        if self.cross:
            out = pose_masked_attention(query, key, value, attn.heads, seen[self.level])
        else:
            out = attend(query, key, value, attn.heads)
        return attn.to_out[1](attn.to_out[0](out))


class DiffusersBranch:
    """ControlNetModel on the very parameters of a branch: what trains one trains the other."""

    def __init__(self, branch: ControlBranch) -> None:
        from diffusers import ControlNetModel
        self.branch, sizes = branch, branch.sizes
        with torch.device("meta"):
            net = ControlNetModel(
                in_channels=sizes.in_channels, block_out_channels=tuple(sizes.widths), layers_per_block=sizes.layers,
                cross_attention_dim=sizes.context_width,
                attention_head_dim=sizes.heads)   # diffusers' name for the NUMBER of heads in SD1.5 configs
        net.controlnet_cond_embedding = nn.Identity()   # the method embeds the pose, once per generation
        net.load_state_dict(branch.state_dict(keep_vars=True), assign=True)
        processors = dict(net.attn_processors)
        for site in SITES.values():
            for cross in (False, True):
                key = f"{site.diffusers}.transformer_blocks.0.attn{2 if cross else 1}.processor"
                if key in processors:
                    processors[key] = BranchProcessor(site.level, cross)
        net.set_attn_processor(processors)
        self.net = net

    def shares_weights(self) -> bool:
        """Whether the parameters are still those of the branch, which loading with assign replaces."""
        return self.net.conv_in.weight is self.branch.conv_in.weight

    def __call__(self, sample: Tensor, timestep: Tensor, tokens: Tensor, region: Tensor | None = None,
                 **pose: Tensor) -> tuple[list[Tensor], Tensor]:
        """sample (R, 4, h, w), timestep (R,), tokens (R, N, C) the queries, region (R, 1, H, W) the pose region, pose:
        `stem` (R, C, h, w), added after conv_in, or `map_0` to `map_2`, added at the end of that down block.

        Returns 12 skip residuals and the middle one, as `injections.Control` wants.
        """
        net, branch = self.net, self.branch
        net.train(branch.training)
        if branch.checkpointing != net.is_gradient_checkpointing:
            net.enable_gradient_checkpointing() if branch.checkpointing else net.disable_gradient_checkpointing()
        stem, maps = pose_inputs(pose)
        latent = tuple(sample.shape[-2:])
        stem = None if stem is None else fitted_map(stem, latent, "the pose")
        maps = [None if value is None else fitted_map(value, at_level(latent, level), "the pose")
                for level, value in enumerate(maps)]
        attention = {"seen": branch.sizes.seen(region, sample, tokens)}
        tokens = tokens.to(sample.dtype)
        emb = net.time_embedding(net.time_proj(timestep).to(sample.dtype))
        h = net.conv_in(sample)
        h = h if stem is None else h + stem.to(h.dtype)
        skips = [h]
        for level, block in enumerate(net.down_blocks):
            if level < len(maps):
                h, outputs = block(h, emb, encoder_hidden_states=tokens, cross_attention_kwargs=attention,
                                   additional_residuals=None if maps[level] is None else maps[level].to(h.dtype))
            else:
                h, outputs = block(h, emb)
            skips += outputs
        h = net.mid_block(h, emb, encoder_hidden_states=tokens, cross_attention_kwargs=attention)
        residuals = [zero(skip) for zero, skip in zip(net.controlnet_down_blocks, skips, strict=True)]
        return residuals, net.controlnet_mid_block(h)


def network_of(branch: ControlBranch) -> DiffusersBranch:
    """The network of a branch, built on first use. It is kept beside the branch's modules: its weights are theirs."""
    held = branch.__dict__.get(HELD)
    if held is None or held.branch is not branch or not held.shares_weights():
        held = branch.__dict__[HELD] = DiffusersBranch(branch)
    return held
