"""Weights of a method in the host's MODEL: they replace the base's, under any LoRA, and leave with the patch."""

from __future__ import annotations

from collections.abc import Mapping

import comfy.model_patcher
import comfy.model_sampling
import comfy.utils
import torch
from torch import Tensor

from ...pgpis_models.checkpoint import Metadata
from ...pgpis_models.unet.base import needs_velocity
from ...pgpis_models.unet.sites import SITES

SD1_DEPTHS = [1, 1, 1, 1, 1, 1, 0, 0]  # transformer blocks per layer of the down path, in the host's UNet config
LISTED = 10


def check_topology(model: comfy.model_patcher.ModelPatcher) -> dict:
    """The UNet config of a MODEL of the Stable Diffusion 1.x/2.x topology; ValueError for any other."""
    config = getattr(getattr(model.model, "model_config", None), "unet_config", None) or {}
    if list(config.get("transformer_depth", ())) != SD1_DEPTHS or len(config.get("channel_mult", ())) != 4:
        raise ValueError(f"this MODEL is {type(model.model).__name__} with transformer depths "
                         f"{config.get('transformer_depth', 'unknown')}; expected a Stable Diffusion 1.x or 2.x UNet "
                         f"({SD1_DEPTHS}). Load an SD1.5 checkpoint, or the base that the PGPIS checkpoint names")
    return config


def widths_of(config: Mapping) -> tuple[int, ...]:
    """Channels of the four levels of a UNet, finest first."""
    return tuple(config["model_channels"] * factor for factor in config["channel_mult"])


def check_widths(model: comfy.model_patcher.ModelPatcher, rows: Mapping[str, Tensor], method: str) -> None:
    """Compares the channels of rows with those of the MODEL's UNet. Raises ValueError that lists what does not fit."""
    config = check_topology(model)
    widths, context = widths_of(config), config["context_dim"]
    wrong = []
    for name, value in rows.items():
        field, _, place = name.partition(".")
        if field == "context":
            expected, given = context, value.shape[-1]
        elif field in ("query_bias", "self_reference", "extra_k", "extra_v"):
            expected, given = widths[SITES[place].level], value.shape[-1]
        elif field == "down_residual":
            expected, given = widths[int(place)], value.shape[1]
        elif field in ("stem", "time_embedding"):
            expected, given = widths[0] * (1 if field == "stem" else 4), value.shape[1]
        else:
            continue
        if given != expected:
            wrong.append(f"{name} has width {given}, the MODEL {expected}")
    if wrong:
        raise ValueError(f"{method} does not fit this MODEL, whose UNet has widths {widths} and cross-attention width "
                         f"{context}: {'; '.join(wrong[:LISTED])}. Load the base model that the checkpoint names")


def check_prediction(model: comfy.model_patcher.ModelPatcher, meta: Metadata, method: str) -> None:
    """Raises ValueError when a checkpoint was trained for another prediction than the MODEL's sampling takes: the widths are
    equal, the pictures would be noise. meta: the checkpoint's."""
    if not needs_velocity(meta.method, meta.base):
        return
    check_topology(model)
    if not isinstance(model.get_model_object("model_sampling"), comfy.model_sampling.V_PREDICTION):
        raise ValueError(f"{method} predicts v, this MODEL is sampled as predicting something else; expected "
                         "Stable Diffusion 2.1 at 768 (v-prediction), not 2.1-base. Load that, or put ModelSamplingDiscrete "
                         "with v_prediction before this node")


def replace_weights(model: comfy.model_patcher.ModelPatcher, weights: Mapping[str, Tensor], method: str) -> None:
    """Makes `weights` (diffusers parameter name -> tensor) the base's weights of this (already cloned) MODEL.

    Our entry goes first in the list of patches of a key, so that LoRAs loaded before or after add to it. Raises
    ValueError for names the UNet lacks, other shapes, and a MODEL that carries another checkpoint's weights.
    """
    config = check_topology(model)
    native = comfy.utils.unet_to_diffusers(config)
    own = model.model_state_dict()
    patches, wrong = {}, []
    for name, value in weights.items():
        key = f"diffusion_model.{native.get(name)}"
        if key not in own:
            wrong.append(f"{name} (unknown)")
        elif tuple(own[key].shape) != tuple(value.shape):
            wrong.append(f"{name} is {tuple(value.shape)}, the MODEL has {tuple(own[key].shape)}")
        else:
            patches[key] = value
    if wrong:
        raise ValueError(f"{len(wrong)} of {len(weights)} UNet weights of {method} do not fit this MODEL, which has "
                         f"widths {widths_of(config)} and cross-attention width {config.get('context_dim')}: "
                         f"{wrong[:LISTED]}; load the base that the checkpoint was trained on")
    there = {key for key in patches for patch in model.patches.get(key, ()) if _is_set(patch)}
    if any(not torch.equal(patch[1][1][0], patches[key]) for key in there for patch in model.patches[key] if _is_set(patch)):
        raise ValueError("this MODEL already carries the weights of another PGPIS checkpoint; expected a MODEL without, or "
                         "of the same checkpoint: connect the base MODEL to each Apply PGPIS")
    new = {key: ("set", (value,)) for key, value in patches.items() if key not in there}
    if not new:
        return
    accepted = set(model.add_patches(new))
    if accepted != set(new):
        raise ValueError(f"the MODEL accepted {len(accepted)} of {len(new)} replaced weights; refused: "
                         f"{sorted(set(new) - accepted)[:LISTED]}. Use a MODEL with ordinary (not quantised) weights")
    for key in new:
        model.patches[key].insert(0, model.patches[key].pop())


def _is_set(patch: tuple) -> bool:
    """Whether an entry of the host's patch list replaces the weight: (strength, ("set", (W,)), ...)."""
    return isinstance(patch[1], tuple) and len(patch[1]) == 2 and patch[1][0] == "set"
