"""MCLD's reference network as a UNet of the host, under the host's memory management.

It has the class, precision and sizes of the MODEL that it will stand beside, and the checkpoint's own weights. It runs
once per generation, when the person is encoded; its features then travel in the PGPIS_COND.
"""

from __future__ import annotations

from collections.abc import Mapping
from weakref import WeakKeyDictionary

import comfy.model_base
import comfy.model_management
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ...pgpis_models.mcld.reference import REFERENCE_TIMESTEP
from ...pgpis_models.unet.sites import SITE_BY_HOST
from ...pgpis_models.unet.weights import difference, shapes_of
from ..types import Method
from .weights import check_topology, widths_of

ROWS = 4   # people that run at once: reference features are made in a moment, but a big batch of them needs memory
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_networks: WeakKeyDictionary[Method, HostReference] = WeakKeyDictionary()


class HostReference:
    """The seam `ReferenceNetwork` of `pgpis_models.mcld.parts` on a UNet of the host."""

    def __init__(self, patcher: ModelPatcher) -> None:
        self.patcher = patcher

    @torch.no_grad()
    def __call__(self, latent: Tensor, context: Tensor) -> dict[str, Tensor]:
        """latent (B, 4, h, w) of the texture map, already scaled; context (B, N, C) -> site -> (B, HW', C_site)."""
        rows = min(ROWS, len(latent))
        memory = self.patcher.model.memory_required([rows, *latent.shape[1:]])
        comfy.model_management.load_models_gpu([self.patcher], memory_required=memory)
        network, device = self.patcher.model, self.patcher.load_device
        dtype = network.manual_cast_dtype or network.get_dtype()
        parts = [capture(network.diffusion_model, some.to(device, dtype), tokens.to(device, dtype))
                 for some, tokens in zip(latent.split(rows), context.split(rows), strict=True)]
        return {site: torch.cat([part[site] for part in parts]).to(context.device) for site in parts[0]}


def capture(unet: nn.Module, latent: Tensor, context: Tensor) -> dict[str, Tensor]:
    """One call of the host's UNet; what norm1 gives at each site, by the host's attn1 patch."""
    features: dict[str, Tensor] = {}

    def keep(hidden: Tensor, keys: Tensor, values: Tensor, extra_options: dict) -> tuple[Tensor, ...]:
        site = SITE_BY_HOST.get(tuple(extra_options["block"]))
        if site is not None:
            features[site.name] = hidden
        return hidden, keys, values
    time = torch.full((len(latent),), REFERENCE_TIMESTEP, device=latent.device)
    unet(latent, time, context=context, transformer_options={"patches": {"attn1_patch": [keep]}})
    return features


def reference_of(method: Method, model: ModelPatcher) -> HostReference:
    """The reference network of a checkpoint, made on first use in the precision of `model`, whose sizes it must have.

    Raises ValueError when the MODEL is of another topology or width.
    """
    config = check_topology(model)
    expected = method.checkpoint.method.config.unet_widths
    if widths_of(config) != tuple(expected):
        raise ValueError(f"{method.name} has UNets of widths {tuple(expected)}, this MODEL {widths_of(config)}; expected "
                         "the same. Load the base model that the checkpoint names")
    if method not in _networks:
        _networks[method] = HostReference(_patcher(model, method.side_weights, method.name))
        method.side_weights.clear()   # the host's UNet holds them now; a second copy would cost as much again
    return _networks[method]


def _patcher(model: ModelPatcher, weights: Mapping[str, Tensor], name: str) -> ModelPatcher:
    load_device = comfy.model_management.get_torch_device()
    given = model.model.model_config
    config = type(given)(given.unet_config)   # fresh, without the operations of a MODEL with quantised weights
    config.unet_config = dict(given.unet_config)   # its class may have put its own number of heads there
    dtype = model.model.get_dtype()
    dtype = dtype if dtype in _DTYPES else torch.float16
    config.set_inference_dtype(dtype, comfy.model_management.unet_manual_cast(dtype, load_device, list(_DTYPES)))
    network = comfy.model_base.BaseModel(config, comfy.model_base.ModelType.EPS)
    network.diffusion_model.out = nn.Identity()   # the prediction is never used, and the checkpoint has no weights for it
    native = comfy.utils.unet_to_diffusers(config.unet_config)
    own = shapes_of(network.diffusion_model.state_dict())
    wrong = difference({ours: own[theirs] for ours, theirs in native.items() if theirs in own}, shapes_of(weights))
    if wrong:
        raise ValueError(f"the reference network of {name} does not fit this MODEL: {wrong}. Load the base model that the "
                         "checkpoint names")
    network.diffusion_model.load_state_dict({native[key]: value for key, value in weights.items()})
    return ModelPatcher(network.requires_grad_(False), load_device, comfy.model_management.unet_offload_device())
