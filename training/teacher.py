"""Demo only: a method's UNet learns from the base itself, which is told what the method has to find out.

The demo's base was trained with true captions and a pose adapter; told both, it makes nearly the picture that a method on it
is to make from a photo and a pose. So a method may copy what the base's decoder is given (the skips and the middle block's
map) beside learning from pictures: that says at every level what a picture says only in the end. Knowledge distillation
through intermediate features; no published training of these methods has it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from pgpis_models.base import load_unet
from pgpis_models.injections import Injections, everywhere, harmonise
from pgpis_models.pose_factored import FactoredRasters
from training.base import CaptionedUNet, companion
from training.config import MethodConfig
from training.method import there


class Teacher:
    """The base of a run with its own pose adapter. No module, so that it is neither trained nor saved."""

    def __init__(self, base: str, device: torch.device) -> None:
        """base: a file with its adapter beside it."""
        self.model = CaptionedUNet(*load_unet(base), 0.0, 0.0, 1.0)
        self.model.load_companion(companion(Path(base)))
        self.model.requires_grad_(False).train(False).to(device)

    @torch.no_grad()
    def features(self, noisy: Tensor, timesteps: Tensor, caption: Tensor, raster: Tensor | FactoredRasters) -> list[Tensor]:
        """`decoder_inputs` of the base. noisy (B, 4, h, w), timesteps (B,), caption (B, T, C), raster: CFLD's, (B, 21,
        ...)."""
        injected = Injections(context=everywhere(caption), down_residuals=self.model.pose_encoder(raster))
        rows = harmonise([injected], len(noisy)).stacked()
        return decoder_inputs(self.model.unet, lambda: self.model.binding(noisy, timesteps, rows))

    def distillation(self, unet: nn.Module, caption: Tensor, raster: Tensor | FactoredRasters) -> Distillation:
        """Of one batch, into the student's UNet."""
        return Distillation(unet, lambda noisy, timesteps: self.features(noisy, timesteps, caption, raster))


def open_teacher(settings: MethodConfig, device: torch.device) -> Teacher | None:
    """The teacher that a config asks for; None without one, and, said aloud, where the base has no adapter beside it."""
    adapter = str(companion(Path(settings.base)))
    if settings.teacher and there(adapter, "the adapter of method.base (for method.teacher)"):
        return Teacher(settings.base, device)
    return None


class Distillation:
    """Runs the student's UNet as the loss does and keeps `error`, how far it was from the teacher on the same noise."""

    error: Tensor

    def __init__(self, unet: nn.Module, teacher: Callable[[Tensor, Tensor], list[Tensor]]) -> None:
        self.unet, self.teacher = unet, teacher

    def beside(self, binding: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """The binding; a call of it runs the teacher too."""
        def call(noisy: Tensor, timesteps: Tensor, rows: dict[str, Tensor]) -> Tensor:
            found = decoder_inputs(self.unet, lambda: binding(noisy, timesteps, rows))
            self.error = feature_error(found, self.teacher(noisy, timesteps))
            return found[-1]
        return call


def feature_error(found: list[Tensor], wanted: list[Tensor]) -> Tensor:
    """Mean squared error in units of the teacher's variance: the mean over the maps, plus that of the prediction (last)."""
    errors = [(a.float() - b.float()).square().mean() / b.float().var() for a, b in zip(found, wanted, strict=True)]
    return torch.stack(errors[:-1]).mean() + errors[-1]


def decoder_inputs(unet: nn.Module, call: Callable[[], Tensor]) -> list[Tensor]:
    """What a UNet's decoder is given during a call, control residuals included, and the call's result.

    The skip of conv_in is left out: a pose at the stem goes through it, and the base's decoder does not look for it there.
    """
    found: list[Tensor] = []

    def skips(_block: nn.Module, _args: tuple, given: dict) -> None:
        found.extend(given["res_hidden_states_tuple"])

    def middle(_block: nn.Module, _args: tuple, given: dict) -> None:
        found.append(given["hidden_states"])
    blocks = unet.up_blocks
    hooks = [blocks[0].register_forward_pre_hook(middle, with_kwargs=True)]
    hooks += [block.register_forward_pre_hook(skips, with_kwargs=True) for block in blocks]
    try:
        result = call()
    finally:
        for hook in hooks:
            hook.remove()
    del found[-len(blocks[-1].resnets)]   # the last block's first skip, in the order of the encoder
    return [*found, result]
