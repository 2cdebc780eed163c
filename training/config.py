"""Typed training configs: a YAML page, `key=value` overrides, and no silent typo.

The dataclasses below are the documentation of every setting. Lengths are counted in images, so that a config means
the same on one CPU core and on eight GPUs.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from training.ranges import check_ranges


@dataclass(frozen=True)
class DataConfig:
    """Which pictures. `mannequins` draws them, `deepfashion` reads the layout that training/prepare.py makes."""

    kind: str = "mannequins"            # mannequins | deepfashion
    root: str = ""                      # folder of a data set on disk
    name: str = ""                      # what a checkpoint says it was trained on; the kind when empty
    licence: str = ""                   # terms that a checkpoint states; those of the kind when empty
    size: tuple[int, int] = (128, 96)   # height, width of the pictures that are generated, pixels
    identities: int = 3000              # mannequins: people
    views: int = 6                      # mannequins: poses of each person
    seed: int = 0                       # mannequins: first identity; held-out people start at 1_000_000
    cache: str = "output/cache"         # where drawn banks and latents are kept
    flip: bool = False                  # mirror the encoder's input with p = 0.5 (CFLD's authors do, on photos)
    workers: int = 2                    # processes that draw or load, per GPU
    cache_latents: bool = False         # deepfashion: encode every photo once, keep mean and std (3.5 GB at 512x512)


@dataclass(frozen=True)
class AutoencoderConfig:
    """Tiny autoencoder, TAESD layout: 8x smaller, 4 latent channels."""

    width: int = 32                     # channels while training; the file is padded with zeros to 64, the host's width
    crop: int = 64                      # training crop, pixels
    foreground: float = 4.0             # loss weight of person pixels, background 1
    latent_noise: float = 0.05          # std of noise on latents while training, so that neighbours decode alike
    latent_unit: float = 1e-3           # weight of the pull towards unit mean and variance of each latent channel
    init: str = ""                      # demo_vae file to start from
    freeze_encoder: bool = False        # polish the decoder alone: latents made before stay valid


@dataclass(frozen=True)
class DecoderConfig:
    """Polishing the decoder on what a method makes, beside true latents."""

    checkpoint: str = ""                # method whose latents it learns to decode; method.base and method.vae are its base
    pairs: int = 4000                   # pairs of the data that the method makes, once, before training
    share: float = 0.6                  # of the rows of a batch that are such latents; the others are encoded pictures


@dataclass(frozen=True)
class BaseConfig:
    """Tiny base UNet of the SD1.5 topology."""

    block_out_channels: tuple[int, ...] = (64, 64, 64, 64)  # multiples of 32: the host's GroupNorm has 32 groups
    layers_per_block: int = 2
    heads: int = 2                      # attention heads at every site
    cross_attention_dim: int = 64       # width of a context token
    prediction: str = "v_prediction"    # v_prediction | epsilon
    caption_drop: float = 0.1           # share of rows that see the null caption
    pose_drop: float = 0.1              # share of rows that see no pose
    foreground: float = 1.0             # loss weight of the person's latent pixels, background 1
    init: str = ""                      # base file to go on from


@dataclass(frozen=True)
class MethodConfig:
    """A method on a base."""

    model: dict[str, Any] = field(default_factory=dict)   # overrides of the method's own config dataclass
    preset: str = "full"                # named config of the method that `model` overrides
    base: str = ""                      # base UNet: our file, or a diffusers folder
    vae: str = ""                       # autoencoder: our file, or a diffusers folder
    init_pose: str = ""                 # demo only: base file whose pose adapter starts this one, if it lies beside it
    backbone: str = ""                  # ImageNet weights of the backbone, in the published layout
    trainable_unet: tuple[str, ...] = ("default",)  # patterns of UNet weights to train and store; default: the method's
    reconstruct: bool = True            # train source -> source beside source -> target (authors' code)
    cubic_timesteps: bool = True        # t = (1 - u^3) T, favouring noise (authors' code)
    timestep_power: float = 3.0         # in place of that 3: the larger, the more noise is favoured
    caption_loss: float = 0.0           # demo only: pulls the prompt towards the base's caption of the person
    caption_metric: float = 0.0         # demo only: share of that loss measured in the base's picture (caption_loss.py)
    foreground: float = 1.0             # demo only: loss weight of the person's latent pixels, background 1
    teacher: float = 0.0                # demo only: weight of copying the base, told caption and pose (training/teacher.py)
    pixels: float = 0.0                 # demo only: weight of the decoded prediction's squared error (training/pixels.py)
    part_colours: float = 0.0           # demo only: weight, beside pixels, of body parts of a wrong mean colour
    pixels_psnr: bool = False           # demo only: that error picture by picture on a logarithmic scale, as PSNR counts
    encoder_only: bool = False          # demo only: train backbone and decoder on the caption alone, no UNet
    init_encoder: str = ""              # demo only: file of such a run, to start from if it is there
    init: str = ""                      # checkpoint of the same method to start from


@dataclass(frozen=True)
class FPDMSettings:
    """FPDM, both stages; the defaults are the authors'."""

    temperature: float = 0.07           # stage 1: of the contrastive loss
    l1_weight: float = 1e-4             # stage 1: of the distance between source and fusion embedding
    source_enhanced: bool = True        # stage 1: sources join both sides of the loss
    gather: bool = False                # stage 1: candidates of all processes (authors: of this one alone)
    pairs_per_person: int = 1           # stage 1: pairs of one mannequin in a batch, so that the pose must tell them apart
    input_drop: float = 0.0             # stage 1: share of source photos, and of pose pictures, that are zeroed
    clip: str = ""                      # stage 1: CLIP's weights to start from, a safetensors file in the published layout
    dinov2: str = ""                    # stage 2: weights of the source tower, a safetensors file in the published layout
    fusion: str = ""                    # stage 2: checkpoint of stage 1, which stays frozen
    init_tower: str = ""                # demo only: checkpoint or encoder run with backbone.* that starts the Swin tower
    pose_canvas: tuple[int, ...] = ()   # height, width that poses are drawn on; the method's own when empty
    freeze_source: bool = True          # stage 2: the source tower is not trained
    told: bool = False                  # stage 2, demo only: the UNet is told true captions, not what the tower reads
    kinds: float = 0.0                  # stage 2, demo only: weight, within the caption loss, of naming kinds (letters, ...)
    lettered: float = 0.0               # demo only: share of people who are drawn since they wear a letter: few do by chance
    fusion_dropout: bool = True         # stage 2: the frozen combiner keeps its dropout, as in the authors' training
    per_sample_drops: bool = False      # stage 2: conditions are dropped item by item, not for a whole batch at once
    noise_offset: float = 0.1           # stage 2: one random number per latent channel, times this, on top of the noise
    joint_noise: float = 1.0            # stage 2: std of the noise on joints, pixels of the canvas
    flip: float = 0.5                   # stage 2: share of pairs that are mirrored, photos and pose alike
    identity: float = 0.05              # stage 2: share of pairs whose source and target are one photo
    low_share: float = 0.5              # stage 2: share of sources that are first squashed to low_size
    low_size: tuple[int, int] = (256, 256)


@dataclass(frozen=True)
class QENTrainConfig:
    """What task qen has beside MethodConfig."""

    backbone_rate: float = 0.1          # learning rate of the backbone, as a share of lr (the paper does not state rates)


@dataclass(frozen=True)
class MCLDTrainConfig:
    """What MCLD's training has beside; the defaults are the authors', but that rows are dropped one by one."""

    snr_gamma: float = 5.0              # min-SNR weight of the loss; 0 = plain squared error, without the face term
    face_loss: bool = True              # count the head's latent pixels twice
    noise_offset: float = 0.05          # std of the part of the noise that a picture shares
    uncond_drop: float = 0.1            # share of rows without photo, texture map and reference features
    image_drop: float = 0.1             # share of rows without the photo's tokens alone
    reference_drop: float = 0.25        # share of rows without reference features (authors': a quarter, by accident)
    drop: str = "pixels"                # what dropped pictures become: pixels = mean colour, encoded (authors'); tokens =
                                        # zero tokens, the face's too, as the null row of sampling
    train_reference: bool = True        # false: the reference network stays the base, an eighth of the work less
    embedding_noise: float = 0.05       # std of noise on CLIP's embedding of the photo, in its own std per dimension
    std_photos: int = 512               # photos from which that is measured
    image_encoder: str = ""             # CLIP ViT-L/14 as a transformers folder; not used where a preset brings encoders
    controlnet: str = ""                # diffusers folder of ControlNet v1.1 seg, which starts the pose guider

    def __post_init__(self) -> None:
        if self.drop not in ("pixels", "tokens"):
            raise ValueError(f"mcld.drop is {self.drop!r}; expected pixels or tokens")


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    task: str = "cfld"                  # a task of training/train.py
    name: str = "run"                   # folder below `output`
    output: str = "output/train"
    export: str = ""                    # where the finished checkpoint goes; default <output>/<name>/<name>.safetensors
    data: DataConfig = field(default_factory=DataConfig)
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    base: BaseConfig = field(default_factory=BaseConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    fpdm: FPDMSettings = field(default_factory=FPDMSettings)
    qen: QENTrainConfig = field(default_factory=QENTrainConfig)
    mcld: MCLDTrainConfig = field(default_factory=MCLDTrainConfig)
    images: int = 100_000               # length of the run, target images seen; a pair is two where reconstruct is on
    batch: int = 32                     # images of one optimiser step, over all processes and accumulated passes
    accumulate: int = 1                 # forward passes that make up one step
    lr: float = 1e-3
    warmup_images: int = 3_000          # linear warm-up
    decay_share: float = 0.25           # last share of the run over which the rate falls linearly to zero
    schedule: str = "linear"            # linear (warm-up, constant, decay) | cfld (authors': 1000 steps up, /10 at half) |
                                        # fpdm (authors': five stairs up in 5 % of the run, /10 from 55 %)
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    clip: float = 1.0                   # gradient norm; 0 = none
    ema: float = 0.998                  # decay of the weight average; 0 = none
    precision: str = "auto"             # auto | no | bf16 | fp16; auto = bf16 where the device is fast at it
    checkpointing: bool = False         # gradient checkpointing in the UNet
    threads: int = 0                    # CPU threads; 0 = as torch chooses
    seed: int = 3407
    log_every: int = 50                 # steps
    sample_every: int = 20_000          # images between grids and measures of people never trained on; 0 = at the end
    save_every: int = 20_000            # images between resumable states; 0 = only at the end
    resume: bool = True                 # go on from the newest state of this run, if there is one; else replace them

    def __post_init__(self) -> None:
        for name, options in {"schedule": ("linear", "cfld", "fpdm"), "precision": ("auto", "no", "bf16", "fp16")}.items():
            if getattr(self, name) not in options:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(options)}")
        check_ranges(self)


def load_config(path: str | Path, overrides: typing.Sequence[str] = ()) -> TrainConfig:
    """Reads a YAML config and applies `a.b=value` overrides (values in YAML, so 1e-4, true and [1, 2] work).

    Raises ValueError for unknown keys (naming the nearest known one), wrong types and unreadable overrides.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no config file {path}; those shipped are in training/configs")
    tree = _yaml(path.read_text(encoding="utf-8"), str(path)) or {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise ValueError(f"override {override!r} is not key=value (example: data.size=[256,192])")
        node = tree
        *parents, leaf = key.split(".")
        for parent in parents:
            node = node.setdefault(parent, {}) if isinstance(node, dict) else None
        if not isinstance(node, dict):
            raise ValueError(f"override {override!r}: {'.'.join(parents) or path} is not a group of settings")
        node[leaf] = _yaml(value, f"override {override!r}")
    return build(TrainConfig, tree, "")


def _yaml(text: str, what: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{what} cannot be read as YAML: {error}") from error


def build(kind: type, tree: Any, where: str) -> Any:
    """Makes the dataclass `kind` from nested dicts; strict about names and types."""
    if not isinstance(tree, dict):
        raise ValueError(f"{where or 'the config'} is {tree!r}; expected settings by name")
    known = {f.name: f for f in dataclasses.fields(kind)}
    types_ = typing.get_type_hints(kind)
    values = {}
    for key, value in tree.items():
        name = f"{where}.{key}" if where else str(key)
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)
            raise ValueError(f"unknown setting {name!r}; did you mean {'.'.join(filter(None, [where, near[0]]))!r}?")
        values[key] = _coerce(types_[key], value, name)
    return kind(**values)


def _coerce(kind: Any, value: Any, name: str) -> Any:
    origin = typing.get_origin(kind)
    if dataclasses.is_dataclass(kind):
        return build(kind, value, name)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{name} is {value!r}; expected a list")
        item, *rest = typing.get_args(kind)
        if rest and rest[0] is not Ellipsis and len(value) != len(rest) + 1:
            raise ValueError(f"{name} has {len(value)} values {list(value)}; expected {len(rest) + 1}")
        return tuple(_coerce(item, v, name) for v in value)
    if origin is dict or kind is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{name} is {value!r}; expected settings by name")
        return dict(value)
    if origin is types.UnionType:
        return value
    if kind is float and isinstance(value, str):  # YAML reads 1e-4 as a string
        try:
            return float(value)
        except ValueError:
            raise ValueError(f"{name} is {value!r}; expected a number") from None
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{name} is {value!r} ({type(value).__name__}); expected {kind.__name__}")
    return value


def as_json(config: Any) -> str:
    """The config as sorted JSON, for logs and for keys of caches."""
    return json.dumps(dataclasses.asdict(config), sort_keys=True)
