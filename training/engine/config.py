"""Typed training configs: a YAML page, `key=value` overrides, and no silent typo.

The dataclasses below are the documentation of every setting. Lengths are counted in images, so that a config means
the same on one CPU core and on eight GPUs.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pgpis_models.settings import build, check_ranges, one_of, within


@dataclass(frozen=True)
class DataConfig:
    """Which pictures. `mannequins` draws them, `deepfashion` reads the layout that training/prepare.py makes."""

    kind: str = one_of("mannequins", "mannequins", "deepfashion")
    root: str = ""                      # folder of a data set on disk
    name: str = ""                      # what a checkpoint says it was trained on; the kind when empty
    licence: str = ""                   # terms that a checkpoint states; those of the kind when empty
    size: tuple[int, int] = within((256, 192), "1 or more")   # height, width of the pictures that are generated, pixels
    identities: int = within(3000, "1 or more")               # mannequins: people
    views: int = within(2, "1 or more")                       # mannequins: poses of each person
    seed: int = within(0, "0 or more")  # mannequins: first identity; held-out people start at 1_000_000
    turned: tuple[float, ...] = within((), "0 or more")       # mannequins: degrees, least and most, by which a view is
                                        # turned away from the one before, the first from behind; as they come when empty
    cache: str = "output/cache"         # where drawn banks and latents are kept
    flip: bool = False                  # mirror the encoder's input with p = 0.5 (CFLD's authors do, on photos)
    workers: int = within(2, "0 or more")                     # processes that draw or load, per GPU
    cache_latents: bool = False         # deepfashion: encode every photo once, keep mean and std (3.5 GB at 512x512)


@dataclass(frozen=True)
class MethodConfig:
    """A method on a base."""

    model: dict[str, Any] = field(default_factory=dict)   # overrides of the method's own config dataclass
    preset: str = "full"                # named config of the method that `model` overrides
    base: str = ""                      # base UNet: our file, or a diffusers folder
    vae: str = ""                       # autoencoder: our file, or a diffusers folder
    backbone: str = ""                  # what the Swin backbone starts from: ImageNet weights in the published layout
                                        # (torch), or a safetensors file with backbone.*
    trainable_unet: tuple[str, ...] = ("default",)   # patterns of UNet weights to train and store; default: the method's
    reconstruct: bool = True            # train source -> source beside source -> target (authors' code)
    cubic_timesteps: bool = True        # t = (1 - u^3) T, favouring noise (authors' code)
    timestep_power: float = within(3.0, "more than 0")        # in place of that 3: the larger, the more noise is favoured
    halved: bool = False                # latents of pictures of half the size: a first, cheap part of a training
    init: str = ""                      # checkpoint of the same method to start from


@dataclass(frozen=True)
class FPDMSettings:
    """FPDM, both stages; the defaults are the authors'."""

    temperature: float = within(0.07, "more than 0")      # stage 1: of the contrastive loss
    l1_weight: float = within(1e-4, "0 or more")          # stage 1: of the distance between source and fusion embedding
    source_enhanced: bool = True        # stage 1: sources join both sides of the loss
    gather: bool = False                # stage 1: candidates of all processes (authors: of this one alone)
    pairs_per_person: int = within(1, "1 or more")        # stage 1: pairs of one mannequin in a batch, so that the pose must
                                                          # tell them apart
    input_drop: float = within(0.0, "0 to 1")             # stage 1: share of source photos, and of pose pictures, zeroed
    clip: str = ""                      # stage 1: CLIP's weights to start from, a safetensors file in the published layout
    dinov2: str = ""                    # stage 2: weights of the source tower, a safetensors file in the published layout
    fusion: str = ""                    # stage 2: checkpoint of stage 1, which stays frozen
    pose_canvas: tuple[int, ...] = within((), "1 or more")   # height, width that poses are drawn on; the method's when empty
    freeze_source: bool = True          # stage 2: the source tower is not trained
    fusion_dropout: bool = True         # stage 2: the frozen combiner keeps its dropout, as in the authors' training
    per_sample_drops: bool = False      # stage 2: conditions are dropped item by item, not for a whole batch at once
    noise_offset: float = within(0.1, "0 or more")        # stage 2: one random number per latent channel, times this, on top
    joint_noise: float = within(1.0, "0 or more")         # stage 2: std of the noise on joints, pixels of the canvas
    flip: float = within(0.5, "0 to 1")                   # stage 2: share of pairs that are mirrored, photos and pose alike
    identity: float = within(0.05, "0 to 1")              # stage 2: share of pairs whose source and target are one photo
    low_share: float = within(0.5, "0 to 1")              # stage 2: share of sources that are first squashed to low_size
    low_size: tuple[int, int] = within((256, 256), "1 or more")


@dataclass(frozen=True)
class CFLDTrainConfig:
    """What task cfld has beside MethodConfig."""

    drop: str = one_of("prompt", "prompt", "all")         # what a dropped item loses (method.model.prompt_drop): prompt =
                                                          # that alone (authors' code); all = source and pose (paper, 3.4)


@dataclass(frozen=True)
class QENTrainConfig:
    """What task qen has beside MethodConfig."""

    backbone_rate: float = within(0.1, "0 or more")       # learning rate of the backbone, as a share of lr (ours: the paper
                                                          # does not state rates)


@dataclass(frozen=True)
class MCLDTrainConfig:
    """What MCLD's training has beside; the defaults are the authors', but that rows are dropped one by one."""

    snr_gamma: float = within(5.0, "0 or more")           # min-SNR weight of the loss; 0 = plain squared error, no face term
    face_loss: bool = True              # count the head's latent pixels twice
    face_term: str = one_of("weighted", "weighted", "plain")   # weighted = by min-SNR as the rest, and none with snr_gamma 0
                                        # (authors' code); plain = never weighted (eq. 5 and 6 of the paper)
    noise_offset: float = within(0.05, "0 or more")       # std of the part of the noise that a picture shares
    uncond_drop: float = within(0.1, "0 to 1")            # share of rows without photo, texture map and reference features
    image_drop: float = within(0.1, "0 to 1")             # share of rows without the photo's tokens alone
    reference_drop: float = within(0.25, "0 to 1")        # share of rows without reference features (authors': by accident)
    drop: str = one_of("pixels", "pixels", "tokens")      # what dropped pictures become: pixels = mean colour, encoded
                                        # (authors'); tokens = zero tokens, the face's too, as the null row of sampling
    train_reference: bool = True        # false: the reference network stays the base, an eighth of the work less
    embedding_noise: float = within(0.05, "0 or more")    # std of noise on CLIP's embedding of the photo, in its own std per
                                                          # dimension
    std_photos: int = within(512, "1 or more")            # photos from which that is measured
    image_encoder: str = ""             # CLIP ViT-L/14 as a transformers folder; not used where a preset brings encoders
    controlnet: str = ""                # diffusers folder of ControlNet v1.1 seg, which starts the pose guider


@dataclass(frozen=True)
class DistillConfig:
    """Task distill: the checkpoint of method.init, with its guidance, into a LoRA that samples in few steps."""

    method: str = one_of("qen", "cfld", "fpdm", "mcld", "qen")   # of the checkpoint
    mode: str = ""                      # guidance mode of the teacher; the method's own when empty
    weights: dict[str, Any] = field(default_factory=dict)   # its guidance by scale: a number, or [from, to], between which a
                                        # row's is drawn, the same share of the way for all scales; others: 2
    lora: str = ""                      # LoRA to go on from
    rank: int = within(16, "1 or more")
    layers: tuple[str, ...] = ("*.to_q", "*.to_k", "*.to_v", "*.to_out.0", "*.proj_in", "*.proj_out", "*.ff.net.*",
                               "*.conv1", "*.conv2", "*.conv_shortcut", "*samplers.0.conv", "*.time_emb_proj")   # LCM-LoRA's
    skip: int = within(20, "1 or more")                   # timesteps of a step of the teacher's solver: k of section 4.3
    target_ema: float = within(0.95, "0 or more, and less than 1")   # decay of the target network; 0 = the student itself
    huber: float = within(0.001, "more than 0")           # c of sqrt(d^2 + c^2) - c
    timestep_scale: float = within(10.0, "more than 0")   # of the boundary condition
    steps: int = within(4, "1 or more")                   # that grids, measures and the file's metadata are for
    merge: bool = True                  # also write the teacher's checkpoint with the LoRA in its weights


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    task: str = "cfld"                  # a task of training/train.py
    name: str = "run"                   # folder below `output`
    output: str = "output/train"
    export: str = ""                    # where the finished checkpoint goes; default <output>/<name>/<name>.safetensors
    data: DataConfig = field(default_factory=DataConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    fpdm: FPDMSettings = field(default_factory=FPDMSettings)
    cfld: CFLDTrainConfig = field(default_factory=CFLDTrainConfig)
    qen: QENTrainConfig = field(default_factory=QENTrainConfig)
    mcld: MCLDTrainConfig = field(default_factory=MCLDTrainConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    world: dict[str, Any] = field(default_factory=dict)   # settings of a task of training/world, listed in its file
    images: int = within(100_000, "1 or more")            # length of the run, target images; a pair is two with reconstruct
    batch: int = within(32, "1 or more")                  # images of one optimiser step, over all processes and passes
    accumulate: int = within(1, "1 or more")              # forward passes that make up one step
    lr: float = within(1e-3, "more than 0")
    warmup_images: int = within(3_000, "0 or more")       # linear warm-up
    decay_share: float = within(0.25, "0 to 1")           # last share of the run over which the rate falls linearly to zero
    schedule: str = one_of("linear", "linear", "cfld", "fpdm")   # linear (warm-up, constant, decay) | cfld (authors': 1000
                                                          # steps up, /10 at half) | fpdm (authors': five stairs up in 5 % of
                                                          # the run, /10 from 55 %)
    betas: tuple[float, float] = within((0.9, 0.99), "0 or more, and less than 1")
    weight_decay: float = within(0.0, "0 or more")
    clip: float = within(1.0, "0 or more")                # gradient norm; 0 = none
    ema: float = within(0.998, "0 or more, and less than 1")     # decay of the weight average; 0 = none
    precision: str = one_of("auto", "auto", "no", "bf16", "fp16")   # auto = bf16 where the device is fast at it
    checkpointing: bool = False         # gradient checkpointing in the UNet
    channels_last: bool = False         # convolutions in the layout that tensor cores read: for GPUs
    graphs: bool = False                # one GPU: a step is recorded once and replayed as a CUDA graph; for small networks
    threads: int = within(0, "0 or more")                 # CPU threads; 0 = as torch chooses
    seed: int = within(3407, "0 or more")
    log_every: int = within(50, "1 or more")              # steps
    sample_every: int = within(20_000, "0 or more")       # images between grids and measures of people never trained on; 0 =
                                                          # at the end
    save_every: int = within(20_000, "0 or more")         # images between resumable states; 0 = by the clock and at the end
    save_minutes: float = within(30.0, "0 or more")       # minutes without a state after which one is saved; 0 = never
    resume: bool = True                 # go on from the newest state of this run, if there is one; else replace them
    resume_changed: bool = False        # go on from it also with other settings than it was trained with

    def __post_init__(self) -> None:
        check_ranges(self)


def load_config(path: str | Path, overrides: typing.Sequence[str] = ()) -> TrainConfig:
    """Reads a YAML config and applies `a.b=value` overrides (values in YAML, so 1e-4, true and [1, 2] work).

    An empty value (`method.init=`) is an empty text, which stands for none. A name given here takes the export of the file
    along: where no export is given too, it is the default. Raises ValueError for unknown keys (naming the nearest known
    one), wrong types and unreadable overrides.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no config file {path}; those shipped are in training/configs")
    tree = _yaml(path.read_text(encoding="utf-8"), str(path)) or {}
    given = {override.partition("=")[0] for override in overrides}
    if isinstance(tree, dict) and "name" in given and "export" not in given:
        tree.pop("export", None)
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
        node[leaf] = _yaml(value, f"override {override!r}") if value.strip() else ""
    try:
        return build(TrainConfig, tree)
    except ValueError as error:
        empty = next((key for key, _, value in (o.partition("=") for o in overrides)
                      if not value.strip() and str(error).startswith(f"{key} is ")), "")
        raise ValueError(f"{error}; {empty} was given without a value" if empty else str(error)) from error


def _yaml(text: str, what: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{what} cannot be read as YAML: {error}") from error


def as_json(config: Any) -> str:
    """The config as sorted JSON, for logs and for keys of caches."""
    return json.dumps(dataclasses.asdict(config), sort_keys=True)
