"""One generation from end to end without ComfyUI: files to a `Generator`, pictures and poses to pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .checkpoint import load_checkpoint
from .files.pictures import as_rgb
from .garments.feathering import paste
from .methods import picture_encoder, reads_apart, sequence_encoders
from .noise.carried import Carried
from .noise.few_steps import Sampling
from .noise.masked import Kept
from .noise.samplers import sample_latents
from .parts.picking import picked
from .parts.pixels import resized
from .poses.keypoints import Keypoints
from .unet.autoencoder import VAE_STRIDE, decode_latents, encode_latents, load_vae
from .unet.base import check_prediction, load_unet
from .unet.diffusers_binding import DiffusersBinding, swap_weights
from .unet.lora import lora_metadata, lora_sampling, merge_lora

DEMO_FOLDER = Path(__file__).resolve().parent.parent / "models" / "demo"
# What a generation uses when nothing is asked for: the authors' settings, and what suits the demo.
DEFAULTS = {"sd15": {"steps": 50, "sampler": "ddpm", "spacing": "leading", "weights": {"pose": 2.0, "appearance": 2.0}},
            "demo": {"steps": 16, "sampler": "ddim", "spacing": "trailing",
                     "weights": {"pose": 1.0, "appearance": 1.5, "source": 1.5, "fusion": 1.5}},
            "sd21": {"steps": 20, "sampler": "ddpm", "spacing": "leading", "weights": {"source": 2.0, "fusion": 2.0}}}
SCALES = ("pose", "appearance", "biases", "prompt", "source", "fusion")   # of all methods' modes
# Published settings of a method where they differ.
METHOD_DEFAULTS = {"mcld": {"steps": 20, "sampler": "ddim", "spacing": "trailing", "weights": {"appearance": 3.5}}}


def defaults_of(method: str, base: str, own: Sampling | None = None) -> dict[str, Any]:
    """Steps, sampler, spacing and guidance weights of a method on its base, when nothing is asked for. own: what a file of
    distilled weights says; every weight is its cfg then."""
    if own is not None:
        return {"steps": own.steps, "sampler": own.sampler, "spacing": own.spacing,
                "weights": dict.fromkeys(SCALES, own.cfg)}
    if base == "demo":
        return DEFAULTS["demo"]
    return METHOD_DEFAULTS.get(method, DEFAULTS.get(base, DEFAULTS["sd15"]))


class Generator:
    """A method on its base: one source person and a target pose to a picture.

    checkpoint: a file of this pack. base, vae: our files or diffusers folders; the demo's own when the checkpoint was
    trained on it. lora: added to the UNet's weights; of ours, it says the steps and sampler too. Raises ValueError when
    files do not fit together.
    """

    def __init__(self, checkpoint: str | Path, base: str | Path = "", vae: str | Path = "",
                 device: str | torch.device = "cpu", lora: str | Path = "") -> None:
        loaded = load_checkpoint(checkpoint)
        self.encode = picture_encoder(loaded.meta.method)
        demo = loaded.meta.base == "demo"
        if not (base and vae) and not demo:
            raise ValueError(f"{checkpoint} was trained on {loaded.meta.base}; give base and vae as diffusers folders "
                             "(--base DIR holds unet, vae and scheduler)")
        own = getattr(loaded.method, "noise_schedule", lambda: None)()
        base = base or DEMO_FOLDER / "demo_base.safetensors"
        self.unet, self.sizes = load_unet(base, own)
        check_prediction(loaded.meta.method, loaded.meta.base, self.sizes, base)
        swap_weights(self.unet, loaded.unet_weights)
        sampling = loaded.meta.sampling
        if lora:
            merge_lora(self.unet, lora)
            sampling = lora_sampling(lora_metadata(lora), lora, loaded.meta.method) or sampling
        self.vae = load_vae(vae or DEMO_FOLDER / "demo_vae.safetensors").to(device)
        self.method, self.meta, self.device = loaded.method.to(device), loaded.meta, torch.device(device)
        self.unet.to(device)
        self.binding = DiffusersBinding(self.unet)
        self.defaults = defaults_of(loaded.meta.method, loaded.meta.base, sampling)
        self.schedule = own or self.sizes.schedule()   # where the method has one of its own
        # Methods whose inputs pass through the autoencoder name it among the arguments of their `encode_pictures`.
        self.shared = self._shared(self.encode)

    @torch.no_grad()
    def __call__(self, sources: Tensor, poses: Sequence[Keypoints], *, mode: str | None = None,
                 weights: dict[str, float] | None = None, steps: int | None = None, sampler: str | None = None,
                 seed: int = 0, first: int = 0, numbers: Sequence[int] | None = None,
                 callback: Callable[[int, int, Tensor], None] | None = None, **extras: Any) -> Tensor:
        """sources (B or 1, 3, H, W) in -1..1 as `prepare` makes them; B poses -> pictures (B, 3, h, w) in 0..1.

        mode: guidance mode, the method's own when None. weights: guidance weight per scale of the mode; those not given,
        and steps and sampler, default to what suits the base. first: number of the first picture, so that a seed gives
        the same picture whatever batches it is made in; numbers: those of all, where they do not follow each other.
        extras: what the method needs beside photo and pose (see `encode_pictures` in its inputs file), and where the sources
        are N photos of one person `one_person`, their weights (`surface.facing.weights_of`).
        """
        return self._decoded(self.latents(
            sources, poses, mode=mode, weights=weights, steps=steps, sampler=sampler, seed=seed, first=first,
            numbers=numbers, callback=callback, **extras))

    @torch.no_grad()
    def latents(self, sources: Tensor, poses: Sequence[Keypoints], *, mode: str | None = None,
                weights: dict[str, float] | None = None, steps: int | None = None, sampler: str | None = None,
                seed: int = 0, first: int = 0, numbers: Sequence[int] | None = None,
                callback: Callable[[int, int, Tensor], None] | None = None, **extras: Any) -> Tensor:
        """What a call decodes: latents (B, 4, h / 8, w / 8) of unit scale. Arguments as in a call."""
        encoded = self.encode(self.method, sources, poses, self.device, **self.shared | extras)
        people = 1 if extras.get("one_person") is not None else sources.shape[0]
        return self._sampled(encoded, max(len(poses), people), mode, weights, steps, sampler, seed, callback,
                             first=first, numbers=numbers)

    @torch.no_grad()
    def sequence(self, source: Tensor, poses: Sequence[Any], *, chunk: int = 8, same_noise: bool = True,
                 carried: Carried | None = None, first_frame: float = 0.0, mode: str | None = None,
                 weights: dict[str, float] | None = None, steps: int | None = None, sampler: str | None = None,
                 seed: int = 0, callback: Callable[[int, int, Tensor], None] | None = None,
                 person: Mapping[str, Any] | None = None, **extras: Any) -> Iterator[Tensor]:
        """One source (1, 3, H, W) in many poses, in order -> chunks of pictures (chunk or fewer, 3, h, w) in 0..1.

        The source is encoded once; poses are encoded and sampled `chunk` at a time, so that memory does not grow with their
        number. same_noise: all frames start from one noise, so that what the pose leaves open stays the same; otherwise
        each has its own, as when made one by one. carried: of all frames, whose noise is then the first one's as it is
        carried along (`surface.carrying`). first_frame: 0..2, how far frames see the first one (`unet.attention.held`), that
        is then sampled again with every later chunk. person, extras: what `encode_source` and `encode_poses` of the method
        take beside, the same for all frames (QEN's mask, strength, start and end). Other arguments as in a call. Raises
        ValueError for more than one source, a chunk below 1, and noise carried along other frames.
        """
        if source.shape[0] != 1 or chunk < 1:
            raise ValueError(f"{source.shape[0]} sources in chunks of {chunk} frames; expected one source, and 1 or more")
        if carried is not None and len(carried.index) != len(poses):
            raise ValueError(f"noise is carried along {len(carried.index)} frames, the poses are {len(poses)}; expected as "
                             "many of both")
        encode_source, encode_poses = sequence_encoders(self.meta.method)
        read = encode_source(self.method, source, self.device, **self._shared(encode_source) | dict(person or {}))
        for first in range(0, len(poses), chunk):
            frames = list(range(first, min(first + chunk, len(poses))))
            again = int(first > 0 and first_frame > 0)
            numbers = [0] * again + frames
            encoded = encode_poses(self.method, read, [poses[number] for number in numbers], self.device, **extras)
            made = self._sampled(
                encoded, len(numbers), mode, weights, steps, sampler, seed,
                callback and (lambda step, t, x, again=again: callback(step, t, x[again:])),
                numbers=[0] * len(numbers) if same_noise else numbers,
                carried=None if carried is None else carried.frames(numbers), first_frame=first_frame)
            yield self._decoded(made[again:])

    @torch.no_grad()
    def pairs(self, sources: Tensor, poses: Sequence[Any], which: Sequence[int], numbers: Sequence[int], *,
              mode: str | None = None, weights: dict[str, float] | None = None, steps: int | None = None,
              sampler: str | None = None, seed: int = 0, person: Mapping[str, Any] | None = None, **extras: Any) -> Tensor:
        """N sources (N, 3, H, W) and B poses, pose i with source which[i] -> pictures (B, 3, h, w) in 0..1.

        Each source is encoded once. numbers: (B,) those of the pictures, for their noise. person, extras: as of `sequence`,
        those of a person with N rows. Other arguments as in a call.
        """
        if not reads_apart(self.meta.method):
            return self(sources[list(which)], poses, mode=mode, weights=weights, steps=steps, sampler=sampler, seed=seed,
                        numbers=numbers, **extras)
        encode_source, encode_poses = sequence_encoders(self.meta.method)
        read = encode_source(self.method, sources, self.device, **self._shared(encode_source) | dict(person or {}))
        encoded = encode_poses(self.method, picked(read, which, len(sources)), poses, self.device, **extras)
        return self._decoded(self._sampled(encoded, len(poses), mode, weights, steps, sampler, seed, None, numbers=numbers))

    def _shared(self, encode: Callable) -> dict[str, Any]:
        """What a method's encoder takes of the generator."""
        return {"vae": self.vae} if "vae" in signature(encode).parameters else {}

    def _decoded(self, latents: Tensor) -> Tensor:
        pictures = decode_latents(self.vae, latents)
        if not bool(pictures.isfinite().all()):
            raise ValueError("the autoencoder made pictures that are not finite of latents that are; use it in float32")
        return pictures

    def _sampled(self, encoded: Any, count: int, mode: str | None, weights: dict[str, float] | None, steps: int | None,
                 sampler: str | None, seed: int, callback: Callable | None, first_frame: float = 0.0,
                 **noise: Any) -> Tensor:
        """Encoded pairs, `count` of them -> latents; see `__call__`. noise: which one, and what of a reference is kept,
        as of `sample_latents`."""
        mode = mode or self.method.guidance_modes[0]
        usual = {name: self.defaults["weights"].get(name, 2.0) for name in self.method.guidance_scales(mode)}
        guidance = self.method.guidance(encoded, mode, **(usual | (weights or {})))
        height, width = self.method.config.latent_size
        return sample_latents(
            self.binding.denoiser(guidance, count, first_frame), self.schedule, (count, 4, height, width),
            steps=steps or self.defaults["steps"], sampler=sampler or self.defaults["sampler"],
            spacing=self.defaults["spacing"], seed=seed, device=self.device, callback=callback, **noise)

    @torch.no_grad()
    def encoded(self, sources: Tensor, poses: Sequence[Keypoints], **extras: Any) -> Any:
        """What the method's encoders make of people and poses, for `edited`. Arguments as in a call."""
        return self.encode(self.method, sources, poses, self.device, **self.shared | extras)

    @torch.no_grad()
    def edited(self, encoded: Any, count: int, *, reference: Tensor | None = None, mask: Tensor | None = None, each: int = 1,
               mode: str | None = None, weights: dict[str, float] | None = None, steps: int | None = None,
               sampler: str | None = None, seed: int = 0, first: int = 0,
               callback: Callable[[int, int, Tensor], None] | None = None) -> Tensor:
        """`count` pictures of what `encoded` holds, such as two people blended -> (count, 3, h, w) in 0..1.

        reference (1, 3, H, W) in 0..1 and mask (1, 1, H, W) in 0..1: masked sampling; the pictures then have the reference's
        size and are equal to it, to the bit, where the mask is 0; where that is everywhere nothing is sampled. each: so many
        pictures that follow each other start from one noise. Other arguments as in a call.
        """
        kept = None
        if mask is not None and not mask.any():
            return reference.expand(count, -1, -1, -1)
        if reference is not None:
            size = self.method.config.latent_size
            small = shrunk(reference, self.picture_size).to(self.device)
            kept = Kept(encode_latents(self.vae, small * 2 - 1).expand(count, -1, -1, -1),
                        F.interpolate(mask, size, mode="bilinear").to(self.device).expand(count, -1, -1, -1))
        made = self._decoded(self._sampled(encoded, count, mode, weights, steps, sampler, seed, callback, kept=kept,
                                           numbers=[first + row // each for row in range(count)]))
        if reference is None:
            return made
        made = shrunk(made.cpu().float(), tuple(reference.shape[-2:]))
        return paste(made, reference.expand_as(made), mask.expand(count, -1, -1, -1))

    def prepare(self, image: np.ndarray) -> Tensor:
        """A photo (H, W), (H, W, 3) or (H, W, 4), uint8 or uint16 -> (1, 3, h, w) in -1..1 at the size that the method
        reads photos in.

        The aspect ratio is not kept, as in the authors' code. Transparency is laid over white.
        """
        config = self.method.config
        return read_photo(image, getattr(config, "photo_size", config.image_size))

    @property
    def picture_size(self) -> tuple[int, int]:
        """(height, width) in pixels of what is generated."""
        height, width = self.method.config.latent_size
        return height * VAE_STRIDE, width * VAE_STRIDE


def shrunk(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, 3, H, W) in 0..1 -> (B, 3, *size), bicubic with antialiasing, as nodes resize pictures."""
    if tuple(picture.shape[-2:]) == tuple(size):
        return picture
    return F.interpolate(picture, size=size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)


def read_photo(image: np.ndarray, size: tuple[int, int]) -> Tensor:
    """See `Generator.prepare`. Raises ValueError for other shapes and types."""
    picture = resized(np.asarray(as_rgb(image)), size)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1
