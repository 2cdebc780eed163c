"""Control networks of a method as the host's own control objects: strength, start and end work as for any ControlNet.

QEN's branch runs on the host's ControlNet with the same weights; its masks come in through the host's patch points. One
object serves all terms of a chain, so that the host batches them: which rows it runs on travels with the rows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from weakref import WeakKeyDictionary

import comfy.cldm.cldm
import comfy.controlnet
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.utils
import torch
from comfy.ldm.modules.diffusionmodules.util import timestep_embedding
from torch import Tensor, nn

from ...pgpis_models.unet.control import run_control
from ...pgpis_models.unet.control_branch import BranchSizes, ControlBranch, pose_inputs
from ...pgpis_models.unet.fitting import at_level, fitted_map
from ...pgpis_models.unet.injections import Control
from ...pgpis_models.unet.masked_attention import pose_masked_attention
from ...pgpis_models.unet.shapes import skip_widths
from ...pgpis_models.unet.sites import DOWN_BLOCK_SLOTS, SITES, STEM_SLOT
from .passport import PASSPORT, PREFIX, check_aspect, check_origin
from .weights import check_topology, widths_of

# Branch -> its network in the host, while the branch lives: each generation with a method uses the same one.
_built: WeakKeyDictionary[ControlBranch, comfy.model_patcher.ModelPatcher] = WeakKeyDictionary()


class HostBranch(comfy.cldm.cldm.ControlNet):
    """The host's ControlNet without its picture encoder, which the method brings."""

    def __init__(self, sizes: BranchSizes, dtype: torch.dtype, operations: type = comfy.ops.manual_cast) -> None:
        super().__init__(**_host_config(sizes), hint_channels=3, dtype=dtype, operations=operations)
        del self.input_hint_block
        self.sizes = sizes

    def forward(self, sample: Tensor, timestep: Tensor, tokens: Tensor, region: Tensor | None = None,
                **pose: Tensor) -> tuple[list[Tensor], Tensor]:
        """As `unet.control_diffusers.DiffusersBranch`, in the precision of the sample."""
        stem, maps = pose_inputs(pose)
        latent = tuple(sample.shape[-2:])
        stem = None if stem is None else fitted_map(stem, latent, "the pose")
        maps = [None if value is None else fitted_map(value, at_level(latent, level), "the pose")
                for level, value in enumerate(maps)]
        emb = self.time_embed(timestep_embedding(timestep.float(), self.model_channels).to(sample.dtype))
        seen = self.sizes.seen(region, sample, tokens)
        masked = {site.host: partial(_masked, seen=seen[site.level]) for site in SITES.values()
                  if site.stage != "up" and seen[site.level] is not None}
        options = {"patches_replace": {"attn2": masked}}
        h, skips = sample, []
        for number, (block, zero) in enumerate(zip(self.input_blocks, self.zero_convs, strict=True)):
            options["block"] = ("input", number)
            h = block(h, emb, tokens, options)
            added = stem if number == STEM_SLOT else None
            if number in DOWN_BLOCK_SLOTS[:len(maps)]:
                added = maps[DOWN_BLOCK_SLOTS.index(number)]
            h = h if added is None else h + added.to(h.dtype)
            skips.append(zero(h, emb, tokens))
        options["block"] = ("middle", 0)
        h = self.middle_block(h, emb, tokens, options)
        return skips, self.middle_block_out(h, emb, tokens)


def _masked(query: Tensor, key: Tensor, value: Tensor, extra_options: dict, seen: Tensor) -> Tensor:
    """attn2 replacement of a block of the branch."""
    return pose_masked_attention(query, key, value, extra_options["n_heads"], seen)


def _host_config(sizes: BranchSizes) -> dict:
    first, *_ = sizes.widths
    layers = sizes.layers
    return dict(image_size=32, in_channels=sizes.in_channels, model_channels=first, num_res_blocks=[layers] * 4,
                channel_mult=[width // first for width in sizes.widths], num_heads=sizes.heads,
                transformer_depth=[1] * (3 * layers) + [0] * layers, transformer_depth_middle=1,
                use_spatial_transformer=True, context_dim=sizes.context_width, legacy=False)


def host_names(sizes: BranchSizes) -> dict[str, str]:
    """diffusers parameter name of a branch's weight -> the host's."""
    names = dict(comfy.utils.unet_to_diffusers(_host_config(sizes) | {"transformer_depth_output": [1] * 9 + [0] * 3}))
    for kind in ("weight", "bias"):
        for number in range(len(skip_widths(sizes.widths, sizes.layers))):
            names[f"controlnet_down_blocks.{number}.{kind}"] = f"zero_convs.{number}.0.{kind}"
        names[f"controlnet_mid_block.{kind}"] = f"middle_block_out.0.{kind}"
    return names


def host_branch(branch: ControlBranch) -> comfy.model_patcher.ModelPatcher:
    """The host's network of a branch, built on first use; where no cast is needed the two share the memory of weights.

    Raises ValueError when the widths cannot be had in the host.
    """
    if branch in _built:
        return _built[branch]
    sizes, state = branch.sizes, branch.state_dict()
    if any(width % sizes.widths[0] for width in sizes.widths):
        raise ValueError(f"the control branch has widths {sizes.widths}; expected multiples of the first, as the host has")
    device = comfy.model_management.get_torch_device()
    count = sum(value.numel() for value in state.values())
    dtype = comfy.model_management.unet_dtype(device=device, model_params=count)
    with torch.device("meta"):
        net = HostBranch(sizes, dtype)
    names = host_names(sizes)
    net.load_state_dict({names[name]: value.to(dtype) for name, value in state.items()}, assign=True)
    patcher = comfy.model_patcher.ModelPatcher(net.train(False).requires_grad_(False), device,
                                               comfy.model_management.unet_offload_device())
    _built[branch] = patcher
    return patcher


class InjectedControl(comfy.controlnet.ControlNet):
    """A method's control network as a control object of the host. Its inputs come with the rows of the CONDITIONING.

    network: a ControlBranch, or anything that `injections.Control` allows.
    """

    def __init__(self, network: Callable) -> None:
        super().__init__(None)
        self.network = network
        if isinstance(network, ControlBranch):
            self.control_model_wrapped = host_branch(network)
        elif isinstance(network, nn.Module):
            self.control_model_wrapped = comfy.model_patcher.ModelPatcher(
                network, comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device())
        else:
            self.control_model_wrapped = None
        self.control_model = self.control_model_wrapped.model if self.control_model_wrapped else network
        self.dtype: torch.dtype | None = None

    def pre_run(self, model, percent_to_timestep_function: Callable) -> None:
        """Called by the host before a run: what precision to run in."""
        super().pre_run(model, percent_to_timestep_function)
        if isinstance(self.network, ControlBranch):
            self.dtype = model.manual_cast_dtype or model.get_dtype()   # weights are cast to the UNet's precision
        elif isinstance(self.network, nn.Module):
            self.dtype = next((value.dtype for value in self.network.parameters()), None)

    def get_control(self, x_noisy: Tensor, t: Tensor, cond: dict, batched_number: int,
                    transformer_options: dict) -> dict | None:
        """Called by the host at every step: residuals of the rows that have a pose, zeros for the others."""
        before = None
        if self.previous_controlnet is not None:
            before = self.previous_controlnet.get_control(x_noisy, t, cond, batched_number, transformer_options)
        rows = {name.removeprefix(PREFIX): value for name, value in cond.items() if name.startswith(PREFIX + "control")}
        late = self.timestep_range is not None and (t[0] > self.timestep_range[0] or t[0] < self.timestep_range[1])
        if late or not rows:
            return before
        passport = cond[PASSPORT]
        check_origin(passport.origin, transformer_options)
        check_aspect((x_noisy.shape[-2], x_noisy.shape[-1]), passport)
        sample = self.model_sampling_current.calculate_input(t, x_noisy)
        dtype = self.dtype or sample.dtype
        rows = {name: value.to(sample.device, dtype if value.is_floating_point() else None) for name, value in rows.items()}
        found = run_control(Control(self.control_model), sample.to(dtype), self.model_sampling_current.timestep(t), rows)
        if found is None:
            return before
        skips, middle = found
        return self.control_merge({"input": [], "middle": [middle], "output": skips}, before, output_dtype=None)

    def copy(self) -> InjectedControl:
        """Another control object on the same network."""
        other = InjectedControl(self.network)
        other.control_model_wrapped, other.control_model = self.control_model_wrapped, self.control_model
        self.copy_to(other)
        return other

    def get_models(self) -> list:
        """Called by the host: what to load for a run."""
        return comfy.controlnet.ControlBase.get_models(self) + [m for m in (self.control_model_wrapped,) if m]


def check_control(model: comfy.model_patcher.ModelPatcher, control: Control, method: str) -> None:
    """Raises ValueError when a control branch was trained beside a UNet of other widths than the MODEL's."""
    if not isinstance(control.network, ControlBranch):
        return
    config, sizes = check_topology(model), control.network.sizes
    if tuple(sizes.widths) != widths_of(config):
        raise ValueError(f"{method} does not fit this MODEL, whose UNet has widths {widths_of(config)}: its control branch "
                         f"has {tuple(sizes.widths)}. Load the base model that the checkpoint names")


def control_object(control: Control) -> InjectedControl:
    """The host's control object for a control of a guidance chain."""
    made = InjectedControl(control.network)
    made.strength, made.timestep_percent_range = control.scale, (control.start, control.end)
    return made
