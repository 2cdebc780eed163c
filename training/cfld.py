"""Task `cfld`: CFLD on a base UNet, as the authors train it, on mannequins or on DeepFashion.

Per pair the source is encoded once; the UNet learns to reconstruct the source from (source, source pose) and to make the
target from (source, target pose). The base stays frozen but for the keys and values of the up blocks.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from pgpis_models.base import BaseSizes, decode_latents, load_unet, load_vae
from pgpis_models.cfld import CFLD, CONFIGS, CFLDConfig
from pgpis_models.checkpoint import load_checkpoint, save_checkpoint, write_atomically
from pgpis_models.diffusers_binding import DiffusersBinding
from pgpis_models.injections import Injections, everywhere, harmonise
from pgpis_models.sampling import sample_latents
from pgpis_models.schedule import cubic_timesteps
from training.base import companion, diffusion_loss, person_weight
from training.config import TrainConfig, build
from training.data.pairs import open_pairs
from training.picture import grid

GRID_WEIGHTS = {"pose": 1.0, "appearance": 1.5}   # guidance of the sample grids


class CFLDTask:
    """Trains CFLD's modules and the chosen UNet weights on source-target pairs."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.config, self.device, settings = config, device, config.method
        self.pairs = open_pairs(config, device)
        self.loader_workers = self.pairs.loader_workers
        preset = dataclasses.asdict(CONFIGS[settings.preset]) if settings.preset in CONFIGS else None
        if preset is None:
            raise ValueError(f"method.preset is {settings.preset!r}; expected one of {sorted(CONFIGS)}")
        method = CFLD(build(CFLDConfig, preset | settings.model, "method.model"))
        if settings.encoder_only:
            self._start(method, None)
            self.model = CaptionTraining(method).to(device)
            return
        unet, self.sizes = load_unet(settings.base)
        self.base_name = "demo" if Path(settings.base).is_file() else "sd15"
        self._start(method, unet)
        patterns = [p for pattern in settings.trainable_unet
                    for p in (method.trainable_unet_weights() if pattern == "default" else [pattern])]
        trained = [name for name, _ in unet.named_parameters() if any(fnmatch.fnmatch(name, p) for p in patterns)]
        self.model = CFLDTraining(method, unet, self.sizes, trained, settings.caption_loss,
                                  settings.cubic_timesteps, settings.reconstruct, settings.foreground).to(device)
        self.vae = load_vae(settings.vae).to(device)
        if config.checkpointing:
            unet.enable_gradient_checkpointing()

    def _start(self, method: CFLD, unet: nn.Module | None) -> None:
        """Initial weights: an earlier checkpoint, else an ImageNet backbone and the base's adapter where given."""
        settings = self.config.method
        if settings.init:
            earlier = load_checkpoint(settings.init, expect_method="cfld")
            method.load_state_dict(earlier.method.state_dict())
            own = dict(unet.named_parameters()) if unet else {}
            with torch.no_grad():
                for name, value in earlier.unet_weights.items():
                    own[name].copy_(value)
        if settings.init_encoder:
            state = load_file(settings.init_encoder)
            for part in ("backbone", "decoder"):
                getattr(method, part).load_state_dict({k.removeprefix(f"{part}."): v for k, v in state.items()
                                                       if k.startswith(f"{part}.")})
        if settings.backbone:
            state = torch.load(settings.backbone, map_location="cpu", weights_only=True)
            method.backbone.load_imagenet(state.get("model", state))
        if settings.init_pose:
            state = load_file(companion(Path(settings.init_pose)))
            method.pose_encoder.load_state_dict({k.removeprefix("pose_encoder."): v for k, v in state.items()
                                                 if k.startswith("pose_encoder.")})
            with torch.no_grad():
                method.learnable_vector.copy_(state["null_caption"])

    def groups(self, lr: float) -> list[dict]:
        return [{"params": [p for p in self.model.parameters() if p.requires_grad], "lr": lr}]

    def batch(self, rng: np.random.Generator, size: int) -> dict[str, Tensor]:
        """`size` target images: half as many pairs, since the source is reconstructed too."""
        return self.pairs.batch(rng, size // 2 if self.config.method.reconstruct else size)

    def grid(self) -> np.ndarray:
        """Held-out people: source, pose, made, target; or how the encoder names their colours."""
        held = self.pairs.held_out()
        if self.config.method.encoder_only:
            named = self.model.method.encode_appearance(held["source"].to(self.device)).prompt
            return grid([held["source"], swatches(named, held["source"]), swatches(held["caption"], held["source"])],
                        ["source", "named", "truth"], per_row=6)
        count = held["source"].shape[0]
        method = self.model.method
        encoded = method.encode(held["source"].to(self.device), held["target_pose"].to(self.device))
        guidance = method.guidance(encoded, "uc_down_full", **GRID_WEIGHTS)
        height, width = method.config.latent_size
        made = sample_latents(self.model.binding.denoiser(guidance, count), self.sizes.schedule(),
                              (count, 4, height, width), steps=20, device=self.device)
        made = decode_latents(self.vae, made) * 2 - 1
        return grid([held["source"], held["target_pose"][:, :3] * 2 - 1, made, held["target"]],
                    ["source", "pose", "CFLD", "target"], per_row=3)

    def export(self, path: Path, images: int) -> None:
        if self.config.method.encoder_only:
            parts = {k: v.detach().cpu().contiguous() for k, v in self.model.method.state_dict().items()
                     if k.startswith(("backbone.", "decoder."))}
            write_atomically(path, parts, {"pgpis.format": "1", "pgpis.kind": '"encoder"'})
            return
        unet = dict(self.model.unet.named_parameters())
        save_checkpoint(path, self.model.method, {name: unet[name] for name in self.model.trained},
                        base=self.base_name, step=images, data=self.config.data.kind,
                        licence=self.pairs.licence, dtype=torch.float16 if self.base_name == "demo" else None)


class CFLDTraining(nn.Module):
    """The training loss of CFLD (section 3.4, following the released code)."""

    def __init__(self, method: CFLD, unet: nn.Module, sizes: BaseSizes, trained: list[str], caption_loss: float,
                 cubic: bool, reconstruct: bool, foreground: float) -> None:
        super().__init__()
        self.method, self.unet, self.schedule, self.trained = method, unet, sizes.schedule(), trained
        self.caption_loss, self.cubic, self.reconstruct, self.foreground = caption_loss, cubic, reconstruct, foreground
        unet.requires_grad_(False)
        for name, parameter in unet.named_parameters():
            parameter.requires_grad_(name in trained)
        self.binding = DiffusersBinding(unet)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        appearance = self.method.encode_appearance(batch["source"])
        logs: dict[str, Tensor] = {}
        loss = torch.zeros((), device=batch["source"].device)
        if self.caption_loss:
            caption = F.mse_loss(appearance.prompt.float(), batch["caption"])
            loss, logs["caption"] = loss + self.caption_loss * caption, caption.detach()
        both = self.reconstruct
        pose = torch.cat([batch["source_pose"], batch["target_pose"]]) if both else batch["target_pose"]
        latents = torch.cat([batch["source_latents"], batch["target_latents"]]) if both else batch["target_latents"]
        rows = latents.shape[0]
        repeat = 2 if both else 1
        drop = torch.rand(rows, 1, 1, device=latents.device) < self.method.config.prompt_drop
        prompt = torch.where(drop, self.method.learnable_vector, appearance.prompt.repeat(repeat, 1, 1))
        injected = Injections(
            context=everywhere(prompt), down_residuals=self.method.encode_pose(pose),
            query_bias={site: bias.repeat(repeat, 1, 1) for site, bias in appearance.query_bias.items()})
        timesteps = cubic_timesteps(torch.rand(rows, device=latents.device), self.schedule.steps) if self.cubic else None
        denoising = diffusion_loss(self.binding, self.schedule, latents, harmonise([injected], rows).stacked(), timesteps,
                                   person_weight(batch["person"], self.foreground) if "person" in batch else None)
        logs["denoising"] = denoising.detach()
        return loss + denoising, logs


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
        return F.mse_loss(prompt.float(), batch["caption"]), {}


def swatches(captions: Tensor, like: Tensor) -> Tensor:
    """The main colours that captions (B, T, C) name, top to bottom, as pictures of the shape of `like`."""
    colours = (captions[:, :14, 16:19].float() / 3 + 0.5).clamp(0, 1) * 2 - 1    # (B, 14, 3), see training/data/captions.py
    return F.interpolate(colours.permute(0, 2, 1)[..., None], size=like.shape[-2:], mode="nearest")
