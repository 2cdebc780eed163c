"""Task `cfld`: CFLD on a base UNet, as the authors train it, on mannequins or on DeepFashion.

Per pair the source is encoded once; the UNet learns to reconstruct the source from (source, source pose) and to make the
target from (source, target pose). The base stays frozen but for the keys and values of the up blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pgpis_models.base import BaseSizes
from pgpis_models.cfld import CFLD, CONFIGS, CFLDConfig
from pgpis_models.diffusers_binding import DiffusersBinding
from pgpis_models.injections import harmonise
from pgpis_models.schedule import cubic_timesteps
from training.base import companion, diffusion_loss, person_weight
from training.config import MethodConfig, TrainConfig
from training.data.pairs import open_pairs
from training.latents import draw, posterior
from training.method import (
    MethodTask,
    below,
    caption_error,
    check_demo_settings,
    configured,
    draw_images,
    grid_scale,
    start_from,
    swatches,
    there,
    trained_weights,
)
from training.picture import grid

GRID_WEIGHTS = {"demo": {"pose": 1.0, "appearance": 1.5}}   # guidance of the sample grids; other bases: as published


class CFLDTask(MethodTask):
    """Trains CFLD's modules and the chosen UNet weights on source-target pairs.

    Raises ValueError when config, data, base and earlier checkpoint do not fit together, before the first step.
    """

    encoder_parts = ("backbone", "decoder")

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        super().__init__(config, device)
        settings = config.method
        sizes = configured(CFLDConfig, CONFIGS, settings)
        check_demo_settings(config)
        method = CFLD(sizes)
        self.pairs = open_pairs(config, sizes, device)
        self.batch = partial(draw_images, self.pairs, 2 if settings.reconstruct else 1)
        self.loader_workers, self.licence = self.pairs.loader_workers, self.pairs.licence
        if settings.encoder_only:
            start(method, None, settings)
            self.model = CaptionTraining(method).to(device)
            return
        unet = self.open_base()
        replaced = start(method, unet, settings)
        trained = trained_weights(method, unet, settings)
        self.store(trained, replaced)
        self.model = CFLDTraining(method, unet, self.sizes, trained, partial(posterior, self.vae), settings).to(device)

    def grid(self) -> np.ndarray:
        """Held-out people: source, pose, made, target; or how the encoder names their colours."""
        held = self.pairs.held_out()
        if self.config.method.encoder_only:
            named = self.model.method.encode_appearance(held["source"].to(self.device)).prompt
            return grid([held["source"], swatches(named, held["source"]), swatches(held["caption"], held["source"])],
                        ["source", "named", "truth"], per_row=6)
        made = self.sample(held["source"], held["target_pose"]) * 2 - 1
        return grid([held["source"], held["target_pose"][:, :3] * 2 - 1, made, held["target"]],
                    ["source", "pose", "CFLD", "target"], scale=grid_scale(held["source"]), per_row=3)

    def sample(self, source: Tensor, pose: Tensor, steps: int = 20, seed: int = 0) -> Tensor:
        """source (B, 3, H, W) in -1..1, pose (B, 21, h, w) in 0..1 -> pictures (B, 3, 8h', 8w') in 0..1."""
        method = self.model.method
        encoded = method.encode(source.to(self.device), pose.to(self.device))
        guidance = method.guidance(encoded, "uc_down_full", **GRID_WEIGHTS.get(self.base_name, {}))
        return self.sampled(guidance, len(source), steps, seed)


def start(method: CFLD, unet: nn.Module | None, settings: MethodConfig) -> set[str]:
    """Initial weights: an earlier checkpoint, else an encoder run, an ImageNet backbone and the base's adapter.

    Returns the names of the UNet weights that the earlier checkpoint replaced: they belong to the next one too.
    """
    replaced = set(start_from(method, settings.init, "cfld", unet)) if settings.init else set()
    if there(settings.init_encoder, "method.init_encoder"):
        state = load_file(settings.init_encoder)
        for part in CFLDTask.encoder_parts:
            getattr(method, part).load_state_dict(below(state, part))
    if settings.backbone:
        state = torch.load(settings.backbone, map_location="cpu", weights_only=True)
        method.backbone.load_imagenet(state.get("model", state))
    adapter = str(companion(Path(settings.init_pose))) if settings.init_pose else ""
    if there(adapter, "the adapter of method.init_pose"):
        state = load_file(adapter)
        method.pose_encoder.load_state_dict(below(state, "pose_encoder"))
        with torch.no_grad():
            method.learnable_vector.copy_(state["null_caption"])
    return replaced


class CFLDTraining(nn.Module):
    """The training loss of CFLD (section 3.4, following the released code).

    trained: names of the UNet weights to train. encode: pictures -> posteriors of their latents, for batches that bring
    pictures (training/latents.py); it is no submodule, so the autoencoder is neither trained nor saved.
    """

    def __init__(self, method: CFLD, unet: nn.Module, sizes: BaseSizes, trained: list[str],
                 encode: Callable[[Tensor], Tensor], settings: MethodConfig) -> None:
        super().__init__()
        self.method, self.unet, self.schedule, self.settings = method, unet, sizes.schedule(), settings
        self.encode = encode
        for name, parameter in unet.named_parameters():
            parameter.requires_grad_(name in trained)
        self.binding = DiffusersBinding(unet)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """A batch of `Pairs` -> (loss, its parts). Items: B reconstructions of the source, then B transfers."""
        settings, logs = self.settings, {}
        latents = self.latents(batch)
        appearance = self.method.encode_appearance(batch["source"])
        loss = torch.zeros((), device=latents.device)
        if settings.caption_loss:
            caption = caption_error(appearance.prompt, batch["caption"])
            loss, logs["caption"] = loss + settings.caption_loss * caption, caption.detach()
        injected = self.method.training_injections(
            batch["source"], batch["source_pose"] if settings.reconstruct else None, batch["target_pose"],
            appearance=appearance)
        rows = latents.shape[0]
        timesteps = None
        if settings.cubic_timesteps:
            timesteps = cubic_timesteps(torch.rand(rows, device=latents.device), self.schedule.steps)
        weight = person_weight(batch["person"], settings.foreground) if "person" in batch else None
        denoising = diffusion_loss(self.binding, self.schedule, latents, harmonise([injected], rows).stacked(),
                                   timesteps, weight)
        logs["denoising"] = denoising.detach()
        return loss + denoising, logs

    def latents(self, batch: dict[str, Tensor]) -> Tensor:
        """What is to be denoised, (2B or B, 4, h, w): as the batch brings them, or drawn from its pictures' posteriors."""
        kinds = ("source", "target") if self.settings.reconstruct else ("target",)
        if "target_latents" in batch:
            return torch.cat([batch[f"{kind}_latents"] for kind in kinds])
        posteriors = self.encode(torch.cat([batch[f"{kind}_image"] for kind in kinds]))
        return draw(posteriors, torch.randn_like(posteriors[:, 0]))


class CaptionTraining(nn.Module):
    """Demo only: backbone and decoder learn to say the caption of the person that they see."""

    def __init__(self, method: CFLD) -> None:
        super().__init__()
        self.method = method
        method.requires_grad_(False)
        method.backbone.requires_grad_(True)
        method.decoder.requires_grad_(True)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        features = self.method.backbone(batch["source"])
        prompt = self.method.decoder(features[-1])
        return caption_error(prompt, batch["caption"]), {}
