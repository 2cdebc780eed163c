"""Task `qen`: QEN on a base UNet, on mannequins or on DeepFashion, with L_mse + L_rec (eqs. 6 to 8).

Per pair the source is encoded once; the UNet learns to reconstruct the source from (source, source pose) and to make the
target from (source, target pose). Trained are the fusion, the backbone at a lower rate, the control branch, which starts
from the base's encoder, and keys and values of the UNet's cross-attentions; the paper does not state the last.
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
from pgpis_models.diffusers_binding import DiffusersBinding
from pgpis_models.injections import harmonise
from pgpis_models.qen import CONFIGS, QEN, QENConfig
from pgpis_models.schedule import cubic_timesteps
from training.base import companion, diffusion_loss, person_weight
from training.config import MethodConfig, QENTrainConfig, TrainConfig
from training.data.captions import TOKENS
from training.data.pairs import Pairs, open_pairs
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

GRID_WEIGHTS = {"demo": {"pose": 1.0, "appearance": 1.2}}   # guidance of the sample grids; other bases: as in use


class QENTask(MethodTask):
    """Trains QEN's modules and the chosen UNet weights on source-target pairs.

    Raises ValueError when config, data, base and earlier checkpoint do not fit together, before the first step.
    """

    encoder_parts = ("backbone", "fusion")

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        super().__init__(config, device)
        settings = config.method
        sizes = configured(QENConfig, CONFIGS, settings)
        check_demo_settings(config)
        if (settings.caption_loss or settings.encoder_only) and sizes.local_queries < TOKENS:
            raise ValueError(f"method.caption_loss pulls {TOKENS} local queries to the caption's tokens, but there are "
                             f"{sizes.local_queries}; set method.model.local_queries={TOKENS} or more")
        method = QEN(sizes)
        self.pairs = open_pairs(config, sizes, device)
        self.batch = partial(draw_pairs, self.pairs, 2 if settings.reconstruct else 1, sizes.pose_channels)
        self.loader_workers, self.licence = self.pairs.loader_workers, self.pairs.licence
        if settings.encoder_only:
            start(method, None, settings)
            self.model = FusionTraining(method).to(device)
            return
        unet = self.open_base()
        replaced = start(method, unet, settings)
        trained = trained_weights(method, unet, settings)
        self.store(trained, replaced)
        self.model = QENTraining(method, unet, self.sizes, trained, partial(posterior, self.vae), settings).to(device)
        method.control.checkpointing = config.checkpointing

    def groups(self, lr: float) -> list[dict]:
        return parameter_groups(self.model, lr, self.config.qen)

    def grid(self) -> np.ndarray:
        """Held-out people: source, pose, made, target; or how the encoder names their colours."""
        held = self.pairs.held_out()
        if self.config.method.encoder_only:
            named = self.model.method.encode_appearance(held["source"].to(self.device)).tokens[:, :TOKENS]
            return grid([held["source"], swatches(named, held["source"]), swatches(held["caption"], held["source"])],
                        ["source", "named", "truth"], per_row=6)
        made = self.sample(held["source"], held["target_pose"]) * 2 - 1
        return grid([held["source"], held["target_pose"][:, :3] * 2 - 1, made, held["target"]],
                    ["source", "pose", "QEN", "target"], scale=grid_scale(held["source"]), per_row=3)

    def sample(self, source: Tensor, pose: Tensor, steps: int = 20, seed: int = 0) -> Tensor:
        """source (B, 3, H, W) in -1..1, pose (B, 21, h, w) in 0..1 -> pictures (B, 3, 8h', 8w') in 0..1."""
        method = self.model.method
        encoded = method.encode(source.to(self.device), pose[:, :method.config.pose_channels].to(self.device))
        guidance = method.guidance(encoded, "uc_down_full", **GRID_WEIGHTS.get(self.base_name, {}))
        return self.sampled(guidance, len(source), steps, seed)


def draw_pairs(pairs: Pairs, per_pair: int, channels: int, rng: np.random.Generator, size: int) -> dict[str, Tensor]:
    """`draw_images` with the pose rasters cut to the channels that the method reads (3: the drawing alone)."""
    batch = draw_images(pairs, per_pair, rng, size)
    return {name: value[:, :channels].contiguous() if name.endswith("_pose") and isinstance(value, Tensor)
            and value.shape[1] > channels else value for name, value in batch.items()}


def parameter_groups(model: nn.Module, lr: float, settings: QENTrainConfig) -> list[dict]:
    """What is trained, the backbone at its own share of the rate."""
    backbone = [p for name, p in model.named_parameters() if p.requires_grad and ".backbone." in f".{name}"]
    held = {id(p) for p in backbone}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in held]
    return [{"params": rest, "lr": lr}, {"params": backbone, "lr": lr * settings.backbone_rate}]


def start(method: QEN, unet: nn.Module | None, settings: MethodConfig) -> set[str]:
    """Initial weights: an earlier checkpoint, else the base's encoder in the control branch, an encoder run, an ImageNet
    backbone, and the base's pose adapter.

    Returns the names of the UNet weights that the earlier checkpoint replaced: they belong to the next one too.
    """
    if settings.init:
        return set(start_from(method, settings.init, "qen", unet))
    if unet is not None:
        method.control.start_from(unet.state_dict())
    if there(settings.init_encoder, "method.init_encoder"):
        state = load_file(settings.init_encoder)
        method.backbone.load_state_dict(below(state, "backbone"))
        if below(state, "fusion"):   # an encoder run of CFLD has the backbone alone
            method.fusion.load_state_dict(below(state, "fusion"))
    if settings.backbone:
        state = torch.load(settings.backbone, map_location="cpu", weights_only=True)
        method.backbone.load_imagenet(state.get("model", state))
    adapter = str(companion(Path(settings.init_pose))) if settings.init_pose else ""
    if there(adapter, "the adapter of method.init_pose"):
        if method.config.pose_embedding != "adapter":
            raise ValueError(f"method.init_pose is set, but the pose embedding is {method.config.pose_embedding!r}; "
                             "expected adapter: leave init_pose empty, or set method.model.pose_embedding=adapter")
        state = load_file(adapter)
        method.pose_encoder.load_state_dict(below(state, "pose_encoder"))
        null = state["null_caption"]
        with torch.no_grad():
            method.null_tokens.zero_()
            method.null_tokens[:, :null.shape[1]] = null[:, :method.config.tokens]
    return set()


class QENTraining(nn.Module):
    """The training loss of QEN: L_mse + L_rec, a plain sum.

    trained: names of the UNet weights to train. encode: pictures -> posteriors of their latents, for batches that bring
    pictures (training/latents.py); it is no submodule, so the autoencoder is neither trained nor saved.
    """

    def __init__(self, method: QEN, unet: nn.Module, sizes: BaseSizes, trained: list[str],
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
        kinds = ("source", "target") if settings.reconstruct else ("target",)
        latents = self.latents(batch, kinds)
        appearance = self.method.encode_appearance(batch["source"])
        loss = torch.zeros((), device=latents.device)
        if settings.caption_loss:
            caption = caption_error(appearance.tokens[:, :TOKENS], batch["caption"])
            loss, logs["caption"] = loss + settings.caption_loss * caption, caption.detach()
        injected = self.method.training_injections(
            batch["source"], batch["source_pose"] if settings.reconstruct else None, batch["target_pose"],
            appearance=appearance)
        rows = latents.shape[0]
        timesteps = None
        if settings.cubic_timesteps:
            timesteps = cubic_timesteps(torch.rand(rows, device=latents.device), self.schedule.steps)
        weight = person_weight(batch["person"], settings.foreground) if "person" in batch else None
        rows = harmonise([injected], rows)
        denoising = diffusion_loss(partial(self.binding, control=rows.control), self.schedule, latents, rows.stacked(),
                                   timesteps, weight)
        logs["denoising"] = denoising.detach()
        return loss + len(kinds) * denoising, logs   # the sum of two means over equal halves

    def latents(self, batch: dict[str, Tensor], kinds: tuple[str, ...]) -> Tensor:
        """What is to be denoised, (2B or B, 4, h, w): as the batch brings them, or drawn from its pictures' posteriors."""
        if "target_latents" in batch:
            return torch.cat([batch[f"{kind}_latents"] for kind in kinds])
        posteriors = self.encode(torch.cat([batch[f"{kind}_image"] for kind in kinds]))
        return draw(posteriors, torch.randn_like(posteriors[:, 0]))


class FusionTraining(nn.Module):
    """Demo only: backbone and fusion learn to say the caption of the person that they see."""

    def __init__(self, method: QEN) -> None:
        super().__init__()
        self.method = method
        method.requires_grad_(False)
        method.backbone.requires_grad_(True)
        method.fusion.requires_grad_(True)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        return caption_error(self.method.encode_appearance(batch["source"]).tokens[:, :TOKENS], batch["caption"]), {}
