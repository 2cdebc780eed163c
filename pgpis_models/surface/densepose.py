"""DensePose: which of 24 body parts a pixel shows, and where on that part (U, V).

Gueler et al. 2018, "DensePose: dense human pose estimation in the wild". The picture formats and the pose guider's input
follow MCLD's authors' code.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ..parts.pixels import resized
from .mixing import LIMIT, mixed_share

PARTS = 24

# Number -> name; right and left are the person's. DensePose numbers the two halves of a limb without naming them;
# "back" and "front" are those of a person who stands with the palms turned to the body.
PART_NAMES = (
    "background", "torso back", "torso front", "right hand", "left hand", "left foot", "right foot",
    "right upper leg back", "left upper leg back", "right upper leg front", "left upper leg front",
    "right lower leg back", "left lower leg back", "right lower leg front", "left lower leg front",
    "left upper arm back", "right upper arm back", "left upper arm front", "right upper arm front",
    "left lower arm back", "right lower arm back", "left lower arm front", "right lower arm front",
    "head right", "head left",
)

GROUPS: dict[str, tuple[int, ...]] = {
    "torso": (1, 2),
    "hands": (3, 4),
    "feet": (5, 6),
    "upper legs": (7, 8, 9, 10),
    "lower legs": (11, 12, 13, 14),
    "legs": tuple(range(7, 15)),
    "upper arms": (15, 16, 17, 18),
    "lower arms": (19, 20, 21, 22),
    "arms": tuple(range(15, 23)),
    "head": (23, 24),
    "face": (23, 24),  # DensePose has no part of its own for the face; MCLD takes the head as its face region
    "upper clothes": (1, 2, *range(15, 23)),
    "lower clothes": tuple(range(7, 15)),
    "clothes": (1, 2, *range(7, 23)),
    "body": tuple(range(1, 25)),
}

ORDERS = ("part,u,v", "v,u,part")  # of a picture's channels; OpenCV writes the first so that RGB readers see the second


def part_numbers(parts: str | int | Iterable[str | int]) -> tuple[int, ...]:
    """Part numbers 1..24, sorted, from numbers, names of parts ("left foot") and of groups ("arms"), one or several.

    Raises ValueError naming what is not known.
    """
    found: set[int] = set()
    for part in [parts] if isinstance(parts, str | int | np.integer) else parts:
        if isinstance(part, str) and part in GROUPS:
            found.update(GROUPS[part])
        elif isinstance(part, str) and part in PART_NAMES[1:]:
            found.add(PART_NAMES.index(part))
        elif isinstance(part, int | np.integer) and 1 <= part <= PARTS:
            found.add(int(part))
        else:
            raise ValueError(f"part {part!r} is not known; expected a number from 1 to {PARTS}, the name of a part or one "
                             f"of the groups {', '.join(GROUPS)}.")
    return tuple(sorted(found))


@dataclass(frozen=True, eq=False)
class IUV:
    """DensePose of one picture of H x W pixels: part (H, W) uint8 0..24 (0 background), u, v (H, W) float32 0..1.

    Batches are lists of IUV. Raises ValueError on other types and shapes, parts above 24 and u, v outside 0..1.
    """

    part: np.ndarray
    u: np.ndarray
    v: np.ndarray

    def __post_init__(self) -> None:
        for name, kind in (("part", np.uint8), ("u", np.float32), ("v", np.float32)):
            value = getattr(self, name)
            if not isinstance(value, np.ndarray) or value.dtype != kind or value.ndim != 2:
                came = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
                raise ValueError(f"DensePose {name} came as {came}; expected a {np.dtype(kind).name} array (H, W). Use "
                                 f"IUV.from_picture for pictures.")
        if not self.part.shape == self.u.shape == self.v.shape:
            raise ValueError(f"DensePose part, u and v have the sizes {self.part.shape}, {self.u.shape} and "
                             f"{self.v.shape}; expected one (H, W). Resize all three alike, without interpolation.")
        if self.part.size == 0:
            raise ValueError(f"DensePose has the size {self.part.shape}; expected at least one pixel.")
        if self.part.max() > PARTS:
            raise ValueError(f"DensePose parts reach {self.part.max()}; expected 0 to {PARTS}. {_OTHER_ORDER}")
        for name, value in (("u", self.u), ("v", self.v)):
            low, high = float(value.min()), float(value.max())
            if not (low >= 0.0 and high <= 1.0):  # nan fails as well
                raise ValueError(f"DensePose {name} reaches from {low:.4g} to {high:.4g}; expected 0 to 1. Divide 8-bit "
                                 f"values by 255.")

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.part.shape

    @classmethod
    def from_picture(cls, picture: np.ndarray, order: str = "part,u,v") -> IUV:
        """From an IUV picture (H, W, 3) uint8: part number, 255 u and 255 v, channels in one of `ORDERS`.

        A file that OpenCV wrote from (part, U, V) is "part,u,v" when read by OpenCV and "v,u,part" when read as RGB
        (Pillow, ComfyUI's Load Image). Raises ValueError on other types, on parts above 24, on pictures that a filter has
        mixed and on an unknown order.
        """
        check_picture(picture, "the IUV picture")
        part, u, v = np.moveaxis(picture if _ordered(order) else picture[..., ::-1], -1, 0)
        if part.max(initial=0) > PARTS:
            raise ValueError(f"the IUV picture's part channel reaches {part.max()} when read as {order!r}; expected 0 to "
                             f"{PARTS}. {_OTHER_ORDER}")
        if (share := mixed_share(np.stack([part, u, v], -1))) > LIMIT:
            raise ValueError(f"the IUV picture was resized by a filter that mixes pixels: at {share:.0%} of the borders "
                             "between parts lies a mixture of both, whose number is that of another part; expected "
                             f"{LIMIT:.0%} at most. Resize IUV pictures by nearest neighbour, or take the one before.")
        scale = np.float32(255)
        return cls(np.ascontiguousarray(part), u / scale, v / scale)

    def to_picture(self, order: str = "part,u,v") -> np.ndarray:
        """(H, W, 3) uint8: part number, 255 u and 255 v truncated, as the authors' files hold them."""
        # The small addend keeps k / 255 * 255 at k, whatever float32 makes of it.
        u, v = ((value * np.float32(255) + np.float32(1e-3)).astype(np.uint8) for value in (self.u, self.v))
        return np.stack([self.part, u, v] if _ordered(order) else [v, u, self.part], axis=-1)

    def part_mask(self, *parts: str | int) -> np.ndarray:
        """(H, W) bool: where one of these parts or groups shows; the whole person without arguments."""
        return np.isin(self.part, part_numbers(parts)) if parts else self.part > 0


_OTHER_ORDER = (f"Try the other channel order ({' or '.join(map(repr, ORDERS))}), and make sure that the picture was "
                "neither saved as JPEG nor resized with interpolation.")


def _ordered(order: str) -> bool:
    if order not in ORDERS:
        raise ValueError(f"channel order {order!r} is not known; expected {' or '.join(map(repr, ORDERS))}.")
    return order == ORDERS[0]


def check_picture(picture: np.ndarray, name: str) -> None:
    """Raises ValueError unless `picture` is (H, W, 3) uint8 with at least one pixel."""
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[-1] != 3 \
            or not picture.size:
        came = f"{picture.dtype} {picture.shape}" if isinstance(picture, np.ndarray) else type(picture).__name__
        raise ValueError(f"{name} came as {came}; expected a uint8 array (H, W, 3). Multiply pictures in 0..1 by 255, "
                         f"round them and drop an alpha channel.")


def pose_picture(iuv: IUV, size: tuple[int, int] = (512, 512)) -> torch.Tensor:
    """The pose guider's input -> (3, *size) float32 in [0, 1]: V, U and part number, all / 255 (MCLD's authors' code).

    Pillow's bicubic resize, aspect ratio ignored, so that part numbers blend at the borders: published weights saw it so.
    """
    squashed = resized(iuv.to_picture("v,u,part"), size)
    return torch.from_numpy(np.asarray(squashed, dtype=np.float32) / np.float32(255)).permute(2, 0, 1).contiguous()


def pose_pictures(iuvs: Sequence[IUV], size: tuple[int, int] = (512, 512)) -> torch.Tensor:
    """`pose_picture` of a batch -> (B, 3, *size). Raises ValueError without any."""
    if not iuvs:
        raise ValueError("pose_pictures got no DensePose; expected one or more IUV.")
    return torch.stack([pose_picture(iuv, size) for iuv in iuvs])


class NobodyFound(ValueError):
    """A photo in which DensePose finds no person, or none of whom a part can be seen."""


def load_model(path: str | Path, device: str | torch.device = "cpu") -> torch.jit.ScriptModule:
    """A public TorchScript DensePose file (densepose_r50_fpn_dl.torchscript, densepose_r101_fpn_dl.torchscript).

    Needs torchvision, whose operators the file calls. Raises ValueError when the file is missing or not TorchScript.
    """
    try:
        import torchvision  # noqa: F401 - registers torchvision::nms
    except ImportError:
        raise ValueError("DensePose models need the package torchvision, which is not installed; run "
                         "`pip install torchvision`, or load an IUV picture instead") from None
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no DensePose model at {path}; expected densepose_r50_fpn_dl.torchscript or "
                         f"densepose_r101_fpn_dl.torchscript, from huggingface.co/LayerNorm/"
                         f"DensePose-TorchScript-with-hint-image, in models/pgpis/densepose")
    try:
        return torch.jit.load(str(path), map_location=device).train(False)
    except RuntimeError as error:
        raise ValueError(f"{path} is not a TorchScript file that torch {torch.__version__} can read; expected one of the "
                         f"public DensePose models. Download it again.") from error


def estimate(
    model, image: np.ndarray, person: str | int = "largest", channels: str = "bgr", device: str | torch.device = "cpu"
) -> IUV:
    """DensePose of one person in a photo (H, W, 3) uint8 RGB.

    model:    callable as the public TorchScript files are: (3, H, W) uint8 -> boxes (N, 4) x0, y0, x1, y1 in pixels,
              coarse (N, K, h, w), fine (N, 25, h, w), u, v (N, 25, h, w), as a tuple or a dict with the names pred_boxes,
              pred_densepose_coarse_segm ... or boxes, coarse_segm ...; its own module resizes the photo.
    person:   "largest" box, "best" score (the authors' choice: the model lists people by score), or an index from 0.
    channels: order fed to the model; DensePose was trained on "bgr" (MCLD's authors' code), some packs feed "rgb".
    device:   where the model is.

    Raises ValueError when nobody is found or there is no such person.
    """
    check_picture(image, "the photo")
    if channels not in ("bgr", "rgb"):
        raise ValueError(f"channels is {channels!r}; expected 'bgr' or 'rgb'.")
    height, width = image.shape[:2]
    ordered = np.ascontiguousarray(image[..., ::-1] if channels == "bgr" else image).transpose(2, 0, 1)
    with torch.inference_mode():
        boxes, coarse, fine, u, v = _outputs(model(torch.from_numpy(ordered).to(device)))
        index = _chosen(boxes, person, (height, width))
        maps = (x[index : index + 1].float().cpu() for x in (coarse, fine, u, v))
        return _paste(boxes[index].float().cpu(), *maps, (height, width))


def _outputs(found) -> tuple[torch.Tensor, ...]:
    if not isinstance(found, dict):
        return tuple(found)[:5]
    names = {key.removeprefix("pred_densepose_").removeprefix("pred_"): value for key, value in found.items()}
    missing = [name for name in ("boxes", "coarse_segm", "fine_segm", "u", "v") if name not in names]
    if missing:
        raise ValueError(f"the DensePose model gave {sorted(found)}; expected boxes, coarse_segm, fine_segm, u and v. Use "
                         f"one of the public DL models (r50 or r101 FPN DL).")
    return tuple(names[name] for name in ("boxes", "coarse_segm", "fine_segm", "u", "v"))


def _chosen(boxes: torch.Tensor, person: str | int, size: tuple[int, int]) -> int:
    if len(boxes) == 0:
        raise NobodyFound(f"nobody found in a photo of {size[1]}x{size[0]} pixels; expected a person, upright and at least "
                          f"a quarter of the picture high. Crop the photo, or load an IUV picture instead.")
    if person == "largest":
        return int(((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).argmax())
    if person == "best":
        return 0
    if isinstance(person, str) or not 0 <= person < len(boxes):
        raise ValueError(f"person is {person!r}, but the photo shows {len(boxes)}; expected 'largest', 'best' or an index "
                         f"from 0 to {len(boxes) - 1}.")
    return int(person)


def _paste(
    box: torch.Tensor, coarse: torch.Tensor, fine: torch.Tensor, u: torch.Tensor, v: torch.Tensor, size: tuple[int, int]
) -> IUV:
    """One person's maps, resized to the box, on the photo's canvas: fine label where the coarse one is not background."""
    x, y, right, bottom = box.tolist()
    width, height = max(int(right - x), 1), max(int(bottom - y), 1)  # x, y, w, h truncated each: authors' tool
    x, y = int(x), int(y)
    coarse, fine, u, v = (
        F.interpolate(each, (height, width), mode="bilinear", align_corners=False)[0] for each in (coarse, fine, u, v)
    )
    label = fine.argmax(0) * (coarse.argmax(0) > 0)  # (height, width)
    # U and V of the background's channel mean nothing; the authors' are 0 there.
    u, v = (each.gather(0, label[None])[0].clamp(0, 1) * (label > 0) for each in (u, v))
    top, left, down, across = max(y, 0), max(x, 0), min(y + height, size[0]), min(x + width, size[1])
    maps = []
    for values, kind in ((label, np.uint8), (u, np.float32), (v, np.float32)):
        canvas = np.zeros(size, kind)
        if top < down and left < across:
            canvas[top:down, left:across] = values[top - y : down - y, left - x : across - x].numpy()
        maps.append(canvas)
    if not maps[0].any():
        raise NobodyFound(f"the person found in a photo of {size[1]}x{size[0]} pixels shows no body part; expected a person "
                          f"whose body can be seen. Choose another person, or crop the photo.")
    return IUV(*maps)
