"""Training: images/s, share of the device's peak (MFU), memory; latents cached, or made in the step."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pgpis_models.cfld.config import CONFIGS as CFLD_CONFIGS
from pgpis_models.cfld.model import CFLD
from pgpis_models.unet.autoencoder import VAE_STRIDE
from training.engine.config import MethodConfig, TrainConfig
from training.engine.loss import posterior
from training.engine.speed import peak_of
from training.engine.step import computing, make_step
from training.tasks.cfld import CFLDTraining
from training.tasks.fpdm import FPDMTraining
from training.tasks.mcld import MCLDTraining
from training.tasks.qen import QENTraining

from .models import CONFIGS, TINY_WIDTHS, RandomClip, Size, autoencoder, base_sizes, made
from .timing import Report, free, in_words, peak_memory, seconds

SIZES: dict[str, Size] = {"cfld": (512, 512), "mcld": (512, 512), "fpdm": (512, 352), "qen": (512, 512)}  # as published
IMAGES = {"cfld": 16, "mcld": 4, "fpdm": 16, "qen": 8}    # of a step; halved while memory does not hold them
CLIP = {"mcld": 1.0, "qen": 1.0}                          # gradient norms of the published settings; others 0
TINY_SIZE = (64, 64)


@dataclass
class Trainer:
    """A training step as the loop runs it, and what it reads. plain: the loss alone, for counting FLOPs."""

    step: Callable[[dict[str, Any]], Any]
    plain: Callable[[dict[str, Any]], Tensor]
    batch: Callable[[bool], dict[str, Any]]
    model: nn.Module
    images: int
    size: Size


def settings_of(name: str) -> TrainConfig:
    """The published settings of a method as far as its loss reads them."""
    return TrainConfig(task=name, method=MethodConfig(cubic_timesteps=name == "cfld"))


def build(name: str, images: int, device: torch.device, tiny: bool, accelerator: Any) -> Trainer:
    """Networks in float32, loss, optimiser and step of a method, at its published training size."""
    size, sizes = TINY_SIZE if tiny else SIZES[name], base_sizes(name, tiny)
    config, kind = CONFIGS[name](size, tiny)
    if name == "cfld":
        config, kind = CFLD_CONFIGS["tiny" if tiny else "full"], CFLD
        if tiny:   # its latents are a quarter of the photo, those of the pictures an eighth
            config, size = replace(config, unet_widths=TINY_WIDTHS[:3]), (128, 128)
    settings = settings_of(name)
    method, unet = made(lambda: kind(config), device), made(sizes.build, device)
    vae = autoencoder(device, torch.float32, tiny).requires_grad_(False)
    trained, encode = list(method.trainable_unet_weights()), partial(posterior, vae)
    if name == "mcld":
        clip = made(lambda: RandomClip(tiny), device).requires_grad_(False)
        std = torch.full((config.prompt_width,), 0.05, device=device)
        model = MCLDTraining(method, unet, sizes, trained, settings, encode, clip.of_pictures, std)
    elif name == "fpdm":
        model = FPDMTraining(method, unet, sizes, trained, encode, settings)
    else:
        loss = CFLDTraining if name == "cfld" else QENTraining
        model = loss(method, unet, sizes.schedule(), trained, encode, settings.method)
    model.to(device).train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=1e-6, fused=True)
    wrapped, optimiser = accelerator.prepare(model, optimiser)
    step = make_step(accelerator, wrapped, optimiser, parameters, CLIP.get(name, 0.0), None, graphs=False)

    def plain(batch: dict[str, Any]) -> Tensor:
        with computing(accelerator):
            return model(batch)[0]
    return Trainer(step, plain, lambda cached: BATCHES[name](config, size, images, cached, device), model, images, size)


def _pairs(config: Any, size: Size, images: int, cached: bool, device: torch.device) -> dict[str, Tensor]:
    pairs = images // 2   # a pair is two images: the source reconstructed, the target made
    poses = (config.pose_channels, *config.pose_size)
    batch = {"source": torch.randint(256, (pairs, 3, *getattr(config, "photo", config.image_size)), dtype=torch.uint8,
                                     device=device),
             **{f"{side}_pose": torch.rand(pairs, *poses, device=device) for side in ("source", "target")}}
    return batch | _shown(("source", "target"), size, pairs, cached, device)


def _focal(config: Any, size: Size, images: int, cached: bool, device: torch.device) -> dict[str, Tensor]:
    batch = {name: torch.randint(256, (images, 3, *size), dtype=torch.uint8, device=device)
             for name in ("source", "texture", "pose")}
    batch |= {"face": torch.randn(images, config.face_width, device=device)}
    batch |= _shown(("target",), size, images, cached, device)
    return batch | ({"texture_latents": torch.randn(images, 4, *latent_of(size), device=device)} if cached else {})


def _fusion(config: Any, size: Size, images: int, cached: bool, device: torch.device) -> dict[str, Tensor]:
    wanted = {"source": config.source_size, "clip_source": config.fusion.image, "pose": config.image_size,
              "clip_pose": config.fusion.image}
    batch = {name: torch.randint(256, (images, 3, *side), dtype=torch.uint8, device=device) for name, side in wanted.items()}
    return batch | _shown(("target",), size, images, cached, device)


def _shown(sides: tuple[str, ...], size: Size, count: int, cached: bool, device: torch.device) -> dict[str, Tensor]:
    """What is to be made: latents, or pictures in -1..1."""
    if cached:
        return {f"{side}_latents": torch.randn(count, 4, *latent_of(size), device=device) for side in sides}
    return {f"{side}_image": torch.rand(count, 3, *size, device=device) * 2 - 1 for side in sides}


def latent_of(size: Size) -> Size:
    """(height, width) of the latents of pictures of `size`."""
    return size[0] // VAE_STRIDE, size[1] // VAE_STRIDE


BATCHES = {"cfld": _pairs, "qen": _pairs, "mcld": _focal, "fpdm": _fusion}


def accelerator_for(device: torch.device) -> Any:
    """As the training loop makes it: bf16 on a GPU."""
    from accelerate import Accelerator
    return Accelerator(mixed_precision="bf16" if device.type == "cuda" else "no", cpu=device.type != "cuda")


def flops(trainer: Trainer, batch: dict[str, Any]) -> int:
    """FLOPs of forward and backward pass, as PyTorch counts those of matrix products, convolutions and attention."""
    with FlopCounterMode(display=False) as counter:
        trainer.plain(batch).backward()
    for parameter in trainer.model.parameters():
        parameter.grad = None
    return counter.get_total_flops()


def measure(report: Report, name: str, images: int, tiny: bool, repeats: int) -> None:
    """Both kinds of batches of one method. Raises torch.OutOfMemoryError when a step of so many images does not fit."""
    device, accelerator = report.device, accelerator_for(report.device)
    trainer = build(name, images, device, tiny, accelerator)
    try:
        weights = {kind: sum(p.numel() for p in trainer.model.parameters() if p.requires_grad or not only)
                   for kind, only in (("parameters", False), ("trained", True))}
        peak = peak_of(report.device_name)
        for cached in (True, False):
            batch = trainer.batch(cached)
            with peak_memory(device) as memory:
                taken = seconds(lambda: trainer.step(batch), device, repeats, warm=2, about=4.0)   # noqa: B023
            case = f"{name} {trainer.size[0]}x{trainer.size[1]} {'cached' if cached else 'on the fly'}"

            def add(measure: str, value: float | None, unit: str, **more: Any) -> None:
                report.add("training", case, measure, value, unit, method=name, size=list(trainer.size), batch=images,  # noqa: B023
                           latents="cached" if cached else "in the step", precision=accelerator.mixed_precision,  # noqa: B023
                           checkpointing=False, **weights, **more)
            add("images", images, "per step")
            add("step", taken * 1e3, "ms")
            add("speed", images / taken, "images/s")
            if device.type == "cuda":
                add("peak", memory["gib"], "GiB")
            try:
                count = flops(trainer, batch)
            except Exception as error:   # the counter runs another step: the figures so far stand, whatever it meets
                add("work", None, "", error=in_words(error))
                continue
            add("work", count / images / 1e12, "TFLOP/image")
            add("rate", count / taken / 1e12, "TFLOP/s")
            if peak:
                add("MFU", count / taken / peak, "share", peak=peak)
    finally:
        accelerator.free_memory()


def measure_what_fits(report: Report, name: str, tiny: bool, repeats: int) -> None:
    """With half the images as long as memory does not hold them; below two the error is raised."""
    images = 4 if tiny else IMAGES[name]
    for images in itertools.takewhile(lambda count: count >= 2, (images >> n for n in itertools.count())):
        try:
            return measure(report, name, images, tiny, repeats)
        except torch.OutOfMemoryError as error:
            said = str(error)[:200]
        free()
        print(f"training  {name}: {images} images of a step do not fit, trying half", flush=True)
    raise torch.OutOfMemoryError(f"{images} images of a step do not fit: {said}")


def run(report: Report, methods: tuple[str, ...], tiny: bool, repeats: int) -> None:
    """Every method."""
    for name in methods:
        report.unit("training", name, lambda: measure_what_fits(report, name, tiny, repeats))   # noqa: B023
