"""Base UNets as files: a tiny UNet of the Stable Diffusion topology, or a diffusers folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from ..files.reading import read_json
from ..noise.schedule import NoiseSchedule
from ..settings import build
from .limits import check_limits
from .weights import check_finite, difference, open_safetensors, read_floats, shapes_of, write_atomically

PREDICTIONS = ("epsilon", "v_prediction")


@dataclass(frozen=True)
class BaseSizes:
    """Sizes of a base UNet, as stored in its file's metadata under `pgpis.config`.

    heads: attention heads at every site, as in Stable Diffusion 1.x; head_dim: channels of a head at every site instead,
    as in 2.x, where the number of heads grows with the width; 0 for the former. linear_projection: the projections around
    a transformer block are matrices, not 1 x 1 convolutions (2.x). upcast_attention: attention weights are made in float32
    whatever the model's precision (2.1, which overflows in half precision without). prediction: epsilon or v_prediction.
    """

    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: int = 2
    heads: int = 8
    cross_attention_dim: int = 768
    prediction: str = "epsilon"
    in_channels: int = 4
    out_channels: int = 4
    caption_tokens: int = 0  # demo: tokens of the caption that the base was trained with
    caption_std: float = 1.0
    head_dim: int = 0
    linear_projection: bool = False
    upcast_attention: bool = False

    def __post_init__(self) -> None:
        wrong = [width for width in self.block_out_channels if self.head_dim and width % self.head_dim]
        if wrong:
            raise ValueError(f"head_dim is {self.head_dim}, which does not divide the widths {wrong} of a UNet; expected a "
                             "divisor of every width")
        if self.prediction not in PREDICTIONS:
            raise ValueError(f"prediction is {self.prediction!r}; expected one of {', '.join(PREDICTIONS)}")

    @property
    def heads_of(self) -> tuple[int, ...]:
        """Attention heads of each level, finest first."""
        return tuple(width // self.head_dim if self.head_dim else self.heads for width in self.block_out_channels)

    def build(self) -> nn.Module:
        """A diffusers UNet2DConditionModel of these sizes with fresh weights."""
        from diffusers import UNet2DConditionModel
        return UNet2DConditionModel(
            sample_size=64, in_channels=self.in_channels, out_channels=self.out_channels,
            down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
            block_out_channels=tuple(self.block_out_channels), layers_per_block=self.layers_per_block,
            attention_head_dim=self.heads_of,  # diffusers' name for the NUMBER of heads in Stable Diffusion's configs
            use_linear_projection=self.linear_projection, upcast_attention=self.upcast_attention,
            cross_attention_dim=self.cross_attention_dim, norm_num_groups=32)

    def schedule(self) -> NoiseSchedule:
        """The noise schedule that the base was trained with."""
        return NoiseSchedule(prediction=self.prediction)


def save_unet(path: Path, unet: nn.Module, sizes: BaseSizes, *, step: int, data: str) -> None:
    """Writes the UNet in half precision with its sizes as metadata; atomic."""
    tensors = {name: value.detach().to("cpu", torch.float16).contiguous() for name, value in unet.state_dict().items()}
    metadata = {"pgpis.format": "1", "pgpis.kind": '"base"', "pgpis.base": '"demo"',
                "pgpis.config": json.dumps(asdict(sizes)), "pgpis.step": str(step), "pgpis.data": json.dumps(data)}
    write_atomically(path, tensors, metadata)


def load_unet(path: str | Path, own: NoiseSchedule | None = None) -> tuple[nn.Module, BaseSizes]:
    """A base UNet in float32 evaluation mode, from our file or a diffusers folder (its `unet` subfolder if it has one).

    own: the schedule of a method that does not use the base's; a folder then needs no scheduler file. Raises ValueError
    when the file is something else or its weights do not fit its own metadata, and when a folder does not say what its UNet
    predicts.
    """
    path = Path(path)
    if path.is_dir():
        prediction = own.prediction if own else _folder_prediction(path)   # before gigabytes are read
        return _diffusers_unet(path, prediction)
    sizes = read_sizes(path)
    try:
        unet = sizes.build()
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: its sizes make no UNet: {error}; the file is damaged, download it again") from error
    state = read_floats(path)
    wrong = difference(shapes_of(unet.state_dict()), shapes_of(state))
    if wrong:
        raise ValueError(f"{path} does not hold the UNet that its metadata describes: {wrong}; download it again")
    unet.load_state_dict(state)
    return unet.train(False), sizes


def read_sizes(path: str | Path) -> BaseSizes:
    """The sizes in a base file's metadata, without reading its weights. Raises ValueError when it is something else."""
    with open_safetensors(path) as file:
        metadata = file.metadata() or {}
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}
    if metadata.get("pgpis.kind") != '"base"':
        raise ValueError(f"{path} is not a base UNet of this pack (pgpis.kind is {metadata.get('pgpis.kind')}); "
                         "expected a file made by training/train.py with task: base")
    try:
        config = json.loads(metadata.get("pgpis.config", "null"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: its pgpis.config is not JSON that can be read ({error}); download it again") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path}: its pgpis.config is {config!r:.60}; expected the sizes of the base. Download it again")
    check_limits(config, shapes, f"{path}: sizes of the base")
    try:
        return build(BaseSizes, config)
    except (ValueError, ArithmeticError) as error:
        raise ValueError(f"{path}: sizes of the base: {error}") from error


def _diffusers_unet(path: Path, prediction: str) -> tuple[nn.Module, BaseSizes]:
    from diffusers import UNet2DConditionModel
    unet = UNet2DConditionModel.from_pretrained(path / "unet" if (path / "unet").is_dir() else path).train(False)
    check_finite(unet.state_dict().items(), path)
    return unet, sizes_of(unet, prediction)


def _folder_prediction(path: Path) -> str:
    """What the UNet of a diffusers folder predicts; of the folder `unet` itself, what its parent's scheduler says.

    Weights do not tell: those of Stable Diffusion 2.1 have the same shapes for either kind. Raises ValueError without a
    scheduler file.
    """
    places = [path] if (path / "unet").is_dir() else [path, path.absolute().parent]
    files = [place / "scheduler" / "scheduler_config.json" for place in places]
    for file in files:
        if file.is_file():
            # Files as old as Stable Diffusion 1.5's do not name it; diffusers reads these the same way.
            try:
                found = read_json(file, "the settings of a scheduler")
            except ValueError as error:
                raise ValueError(f"{path}: {error}; fetch scheduler/ of the same model anew") from error
            if not isinstance(found, dict):
                raise ValueError(f"{file} holds {type(found).__name__}; expected the settings of a scheduler. Fetch it anew")
            return found.get("prediction_type", "epsilon")
    raise ValueError(f"{path} does not say whether its UNet predicts noise (epsilon) or velocity (v_prediction): expected "
                     f"{' or '.join(map(str, files))}; fetch scheduler/ of the same model and put it beside unet/")


def sizes_of(unet: nn.Module, prediction: str) -> BaseSizes:
    """The sizes of a diffusers UNet2DConditionModel. Raises ValueError when they are not of Stable Diffusion's kinds: one
    number of heads, or one width of a head, at all levels."""
    config = unet.config
    widths, heads = tuple(config.block_out_channels), config.attention_head_dim
    heads = (heads,) * len(widths) if isinstance(heads, int) else tuple(heads)
    dims = {width // count for width, count in zip(widths, heads, strict=True)}
    if len(set(heads)) > 1 and len(dims) > 1:
        raise ValueError(f"this UNet has {heads} attention heads at widths {widths}; expected one number of heads at all "
                         "levels (Stable Diffusion 1.x) or one width of a head (2.x)")
    return BaseSizes(widths, config.layers_per_block, heads[0], config.cross_attention_dim, prediction,
                     head_dim=0 if len(set(heads)) == 1 else dims.pop(), linear_projection=config.use_linear_projection,
                     upcast_attention=config.upcast_attention)


def needs_velocity(method: str, base: str) -> bool:
    """Whether a checkpoint of this method on this base takes a base of v-prediction alone: FPDM on Stable Diffusion 2.1. It
    replaces every weight, so 2.1-base, of the same shapes, would load and make grey noise."""
    return (method, base) == ("fpdm", "sd21")


def check_prediction(method: str, base: str, sizes: BaseSizes, path: str | Path) -> None:
    """Raises ValueError where a method that `needs_velocity` is given a base that predicts something else.

    base: what the checkpoint is (to be) trained on. path: of the base, for the message.
    """
    if needs_velocity(method, base) and sizes.prediction != SD21.prediction:
        raise ValueError(f"{path} predicts {sizes.prediction}; expected {SD21.prediction}: FPDM is made for Stable "
                         "Diffusion 2.1 at 768 pixels, not for 2.1-base (512 pixels), whose UNet has the same sizes")


# Stable Diffusion 2.1 at 768 pixels, FPDM's base.
SD21 = BaseSizes(cross_attention_dim=1024, prediction="v_prediction", heads=5, head_dim=64, linear_projection=True,
                 upcast_attention=True)
