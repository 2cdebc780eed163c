"""Task `cfld`: CFLD on a base UNet, as the authors train it, on mannequins or on DeepFashion.

Per pair the source is encoded once; the UNet learns to reconstruct the source from (source, source pose) and to make the
target from (source, target pose). The base stays frozen but for the keys and values of the up blocks.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from pgpis_models.base import BaseSizes, decode_latents, load_unet, load_vae
from pgpis_models.cfld import CFLD, CONFIGS, CFLDConfig
from pgpis_models.checkpoint import difference, load_checkpoint, save_checkpoint, shapes_of, write_atomically
from pgpis_models.diffusers_binding import DiffusersBinding, swap_weights
from pgpis_models.injections import harmonise
from pgpis_models.sampling import sample_latents
from pgpis_models.schedule import cubic_timesteps
from training.base import companion, diffusion_loss, person_weight
from training.config import MethodConfig, TrainConfig, build
from training.data.captions import COLOURS
from training.data.pairs import Pairs, open_pairs
from training.latents import draw, posterior
from training.picture import grid

COLOUR_WEIGHT = 4.0   # of the colour columns of a caption: an error there is what one sees
GRID_WEIGHTS = {"demo": {"pose": 1.0, "appearance": 1.5}}   # guidance of the sample grids; other bases: as published
ENCODER_PARTS = ("backbone", "decoder")                     # what encoder_only trains and init_encoder loads


class CFLDTask:
    """Trains CFLD's modules and the chosen UNet weights on source-target pairs.

    Raises ValueError when config, data, base and earlier checkpoint do not fit together, before the first step.
    """

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.config, self.device, settings = config, device, config.method
        if settings.preset not in CONFIGS:
            raise ValueError(f"method.preset is {settings.preset!r}; expected one of {sorted(CONFIGS)}")
        told = {"caption_loss": settings.caption_loss, "encoder_only": settings.encoder_only,
                "foreground": settings.foreground != 1.0}
        if config.data.kind != "mannequins" and any(told.values()):
            raise ValueError(f"{[name for name, on in told.items() if on]} need captions or person masks, which only "
                             f"mannequins have; data.kind is {config.data.kind!r}")
        method = CFLD(build(CFLDConfig, dataclasses.asdict(CONFIGS[settings.preset]) | settings.model, "method.model"))
        self.pairs = open_pairs(config, method.config, device)
        self.batch = partial(draw_images, self.pairs, 2 if settings.reconstruct else 1)
        self.loader_workers = self.pairs.loader_workers
        if settings.encoder_only:
            start(method, None, settings)
            self.model = CaptionTraining(method).to(device)
            return
        for name in ("base", "vae"):
            if not getattr(settings, name) or not Path(getattr(settings, name)).exists():
                raise ValueError(f"method.{name} is {getattr(settings, name)!r}, which is not there; expected a file that "
                                 "training/train.py made, or a diffusers folder (the configs say which, and how to get it)")
        unet, self.sizes = load_unet(settings.base)
        self.base_name = base_name(Path(settings.base), self.sizes)
        replaced = start(method, unet, settings)
        trained = trained_weights(method, unet, settings)
        self.stored = sorted({*trained, *replaced})
        self.vae = load_vae(settings.vae).to(device)
        self.model = CFLDTraining(method, unet, self.sizes, trained, partial(posterior, self.vae), settings).to(device)
        if config.checkpointing:
            unet.enable_gradient_checkpointing()

    def groups(self, lr: float) -> list[dict]:
        return [{"params": [p for p in self.model.parameters() if p.requires_grad], "lr": lr}]

    def grid(self) -> np.ndarray:
        """Held-out people: source, pose, made, target; or how the encoder names their colours."""
        held = self.pairs.held_out()
        if self.config.method.encoder_only:
            named = self.model.method.encode_appearance(held["source"].to(self.device)).prompt
            return grid([held["source"], swatches(named, held["source"]), swatches(held["caption"], held["source"])],
                        ["source", "named", "truth"], per_row=6)
        made = self.sample(held["source"], held["target_pose"]) * 2 - 1
        scale = 2 if held["source"].shape[-1] < 200 else 1
        return grid([held["source"], held["target_pose"][:, :3] * 2 - 1, made, held["target"]],
                    ["source", "pose", "CFLD", "target"], scale=scale, per_row=3)

    def sample(self, source: Tensor, pose: Tensor, steps: int = 20, seed: int = 0) -> Tensor:
        """source (B, 3, H, W) in -1..1, pose (B, 21, h, w) in 0..1 -> pictures (B, 3, 8h', 8w') in 0..1, on the bare
        modules and in their own precision."""
        method = self.model.method
        encoded = method.encode(source.to(self.device), pose.to(self.device))
        guidance = method.guidance(encoded, "uc_down_full", **GRID_WEIGHTS.get(self.base_name, {}))
        height, width = method.config.latent_size
        latents = sample_latents(self.model.binding.denoiser(guidance, len(source)), self.sizes.schedule(),
                                 (len(source), 4, height, width), steps=steps, seed=seed, device=self.device)
        return decode_latents(self.vae, latents)

    def export(self, path: Path, images: int) -> None:
        if self.config.method.encoder_only:
            parts = {k: v.detach().cpu().contiguous() for k, v in self.model.method.state_dict().items()
                     if k.split(".")[0] in ENCODER_PARTS}
            write_atomically(path, parts, {"pgpis.format": "1", "pgpis.kind": '"encoder"'})
            return
        unet = dict(self.model.unet.named_parameters())
        save_checkpoint(path, self.model.method, {name: unet[name] for name in self.stored},
                        base=self.base_name, step=images, data=self.config.data.kind,
                        licence=self.pairs.licence, dtype=torch.float16 if self.base_name == "demo" else None)


def draw_images(pairs: Pairs, per_pair: int, rng: np.random.Generator, size: int) -> dict[str, Tensor]:
    """A batch of `size` target images. per_pair: 2 where the source is reconstructed beside the target."""
    if size % per_pair:
        raise ValueError(f"a process gets {size} images per pass, but a pair is {per_pair} (method.reconstruct); choose a "
                         f"batch that leaves a multiple of {per_pair}")
    return pairs.batch(rng, size // per_pair)


def base_name(path: Path, sizes: BaseSizes) -> str:
    """What a checkpoint says it was trained on: demo for our own files, sd15 or sd21 by the width of the context."""
    return "demo" if path.is_file() else "sd21" if sizes.cross_attention_dim == 1024 else "sd15"


def start(method: CFLD, unet: nn.Module | None, settings: MethodConfig) -> set[str]:
    """Initial weights: an earlier checkpoint, else an encoder run, an ImageNet backbone and the base's adapter.

    Returns the names of the UNet weights that the earlier checkpoint replaced: they belong to the next one too.
    """
    replaced: set[str] = set()
    if settings.init:
        earlier = load_checkpoint(settings.init, expect_method="cfld")
        wrong = difference(shapes_of(method.state_dict()), shapes_of(earlier.method.state_dict()))
        if wrong:
            raise ValueError(f"{settings.init} (method.init) has other sizes than this run: {wrong}; use its preset")
        method.load_state_dict(earlier.method.state_dict())
        if unet is not None:
            swap_weights(unet, earlier.unet_weights)
            replaced = set(earlier.unet_weights)
    if there(settings.init_encoder, "method.init_encoder"):
        state = load_file(settings.init_encoder)
        for part in ENCODER_PARTS:
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


def there(path: str, what: str) -> bool:
    """Whether an optional start is there; says so where it is asked for and missing."""
    if path and not Path(path).is_file():
        print(f"{what} is {path}, which is not there: starting without it, which takes more images to the same result")
        return False
    return bool(path)


def below(state: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    """The entries of one submodule, without its prefix."""
    return {name.removeprefix(f"{part}."): value for name, value in state.items() if name.startswith(f"{part}.")}


def trained_weights(method: CFLD, unet: nn.Module, settings: MethodConfig) -> list[str]:
    """Names of the UNet weights to train.

    Raises ValueError when the UNet has not the method's widths, a pattern fits nothing, or the patterns leave out weights
    that a checkpoint of the method must hold.
    """
    shapes = shapes_of(dict(unet.named_parameters()))
    wrong = difference(method.unet_weight_shapes(), shapes, extras=True)
    if wrong:
        raise ValueError(f"the base {settings.base} does not fit the method: {wrong}; set method.model.unet_widths and "
                         "prompt_width to the base's, or choose another base")
    chosen: set[str] = set()
    for pattern in settings.trainable_unet:
        fits = method.trainable_unet_weights() if pattern == "default" else fnmatch.filter(shapes, pattern)
        if not fits:
            raise ValueError(f"method.trainable_unet: {pattern!r} fits no weight of the UNet; expected names such as "
                             f"{next(iter(shapes))}, * for any part, or default")
        chosen |= set(fits)
    lacking = set(method.trainable_unet_weights()) - chosen
    if lacking:
        raise ValueError(f"method.trainable_unet leaves out {len(lacking)} weights that belong to the method; add default")
    return sorted(chosen)


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


def caption_error(prompt: Tensor, caption: Tensor) -> Tensor:
    """Mean squared error of a prompt (B, T, C) against the caption; its colours count COLOUR_WEIGHT times."""
    error = (prompt.float() - caption).square()
    return error.mean() + (COLOUR_WEIGHT - 1) * error[..., COLOURS].sum(-1).mean() / error.shape[-1]


def swatches(captions: Tensor, like: Tensor) -> Tensor:
    """The main colours that captions (B, T, C) name, top to bottom, as pictures of the shape of `like`."""
    colours = (captions[:, :14, 16:19].float() / 3 + 0.5).clamp(0, 1) * 2 - 1    # (B, 14, 3), see training/data/captions.py
    return F.interpolate(colours.permute(0, 2, 1)[..., None], size=like.shape[-2:], mode="nearest")
