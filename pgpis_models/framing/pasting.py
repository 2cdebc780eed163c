"""Paste Back: what a method made in a frame, back in the photo at the photo's own resolution."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .boxes import SIDE, TOP, Frame

FEATHER = 24          # pixels of the photo
SHAPE = 0.02          # a result of another shape than the frame's is another picture
OTHER, FAR = 0.5, 24  # share of a thumbnail's cells that are this far (of 255) off in another photo
LARGEST_CHANGE = 0.2  # of 1: what matching colours may add or take away
MOST_FITTED = 2 ** 18 # pixels of the seam, evenly taken, that tell the plane: a wide soft mask has millions
ROUNDS = 8            # of the fit at the seam, in which what differs for other reasons loses its weight


def pasted(made: Tensor, frame: Frame, original: Tensor, *, feather: int = FEATHER, match: bool = True,
           mask: Tensor | None = None) -> Tensor:
    """made (3, h, w) in 0..1, as the method made it -> the photo `original` (3, H, W) with it in its place.

    feather: pixels of the photo over which it fades in from the frame's edge inwards, at most as many as lie between the
    frame and the person. Where the frame ends at the photo's edge there is none. match: what it differs by in colour from
    the photo along the seam, as a plane of each channel, is taken off. mask: (h, w) of the made picture, in 0..1, outside of
    which the photo stays too. Outside the frame the photo is equal bit for bit.

    Raises ValueError when photo or result are not those of this frame.
    """
    check_photo(frame, original)
    x0, y0, x1, y1 = frame.box
    _check_shape(frame, tuple(made.shape[-2:]))
    whole = _resized(made[None].float(), (y1 - y0, x1 - x0))[0].clamp(0, 1)
    weight = torch.from_numpy(edge_weight(frame, feather))
    if mask is not None:
        soft = F.interpolate(mask[None, None].float(), (y1 - y0, x1 - x0), mode="bilinear", align_corners=False)[0, 0]
        weight = torch.minimum(weight, soft.clamp(0, 1))
    top, left = max(y0, 0), max(x0, 0)
    inside = slice(top, min(y1, frame.original[0])), slice(left, min(x1, frame.original[1]))
    within = slice(inside[0].start - y0, inside[0].stop - y0), slice(inside[1].start - x0, inside[1].stop - x0)
    new, weight, old = whole[(slice(None), *within)], weight[within], original[(slice(None), *inside)]
    if match:
        new = seam_difference(new, old.float(), weight).add_(new).clamp_(0, 1)
    result = original.clone()
    result[(slice(None), *inside)] = torch.where(weight > 0, torch.lerp(old.float(), new, weight).to(old.dtype), old)
    return result


def pasted_picture(made: Tensor, frame: Frame, original: np.ndarray, **options) -> np.ndarray:
    """`pasted` on a photo (H, W, 3) uint8 -> the same; where nothing is pasted its bytes stay."""
    photo = torch.from_numpy(original.copy()).permute(2, 0, 1)
    result = pasted(made.cpu(), frame, photo.float() / 255, **options)
    return (result * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def check_photo(frame: Frame, original: Tensor) -> None:
    """Raises ValueError for a photo (3, H, W) of another size than the frame's, or that plainly is another picture."""
    size = tuple(original.shape[-2:])
    if size != frame.original:
        raise ValueError(f"the original is {size[1]}x{size[0]} pixels, the PGPIS_FRAME is of a photo of {frame.original[1]}x"
                         f"{frame.original[0]}; expected the photo that Fit Person framed")
    if not frame.thumbnail:
        return
    known = torch.from_numpy(np.frombuffer(frame.thumbnail, np.uint8).reshape(16, 16, 3).astype(np.float32)).movedim(-1, 0)
    seen = F.adaptive_avg_pool2d(original.float().cpu()[None], 16)[0] * 255
    if float(((known - seen).abs().amax(0) > FAR).float().mean()) > OTHER:
        raise ValueError("the original is not the photo that the PGPIS_FRAME was made of: most of it looks different; "
                         "expected the photo that Fit Person framed")


def edge_weight(frame: Frame, feather: int) -> np.ndarray:
    """(box height, box width) float32, 1 inside, falling towards those edges of the box that lie within the photo."""
    if feather < 0:
        raise ValueError(f"feather is {feather}; expected 0 or more pixels")
    x0, y0, x1, y1 = frame.box
    height, width = y1 - y0, x1 - x0
    ramps = []
    for length, free, low_inside, high_inside in ((height, TOP, y0 > 0, y1 < frame.original[0]),
                                                  (width, SIDE, x0 > 0, x1 < frame.original[1])):
        place, fade = np.arange(length, dtype=np.float32) + 1, min(feather, int(free * length)) + 1
        ramp = np.ones(length, np.float32)
        if low_inside:
            ramp = np.minimum(ramp, place / fade)
        if high_inside:
            ramp = np.minimum(ramp, place[::-1] / fade)
        ramps.append(ramp)
    weight = np.minimum(ramps[0][:, None], ramps[1][None])
    return weight * weight * (3 - 2 * weight)


def seam_difference(made: Tensor, photo: Tensor, weight: Tensor) -> Tensor:
    """(3, h, w): what the photo has more than what was made where one fades into the other, as a plane per channel.

    Fitted with weights that fall where the two differ otherwise (somebody else at the edge), so that a ground of another
    tone is met and a person is not recoloured by what stands beside it. Zero without a seam.
    """
    y, x = torch.nonzero((weight > 0) & (weight < 1), as_tuple=True)
    if len(y) < 16:
        return torch.zeros_like(made)
    apart = -(-len(y) // MOST_FITTED)
    y, x = y[::apart], x[::apart]
    height, width = weight.shape
    basis = torch.stack([torch.ones(len(y)), y / height - 0.5, x / width - 0.5]).double()   # (3, N)
    difference = (photo[:, y, x] - made[:, y, x]).double()
    plane = torch.zeros(3, 3, dtype=torch.float64)
    residual = difference - difference.median(1, keepdim=True).values
    for _ in range(ROUNDS):
        weighted = basis / (1 + residual.square().sum(0) / 0.05 ** 2)
        plane = torch.linalg.solve(weighted @ basis.T + 1e-6 * len(y) * torch.eye(3, dtype=torch.float64),
                                   weighted @ difference.T)
        residual = difference - plane.T @ basis
    rows, columns = torch.arange(height) / height - 0.5, torch.arange(width) / width - 0.5
    fitted = plane[0][:, None, None] + plane[1][:, None, None] * rows[:, None] + plane[2][:, None, None] * columns
    return fitted.clamp_(-LARGEST_CHANGE, LARGEST_CHANGE).to(made.dtype)


def _check_shape(frame: Frame, size: tuple[int, int]) -> None:
    shapes = {frame.size, frame.made}
    if all(abs(size[1] / size[0] * height / width - 1) > SHAPE for height, width in shapes):
        expected = " or ".join(sorted(f"{width}x{height}" for height, width in shapes))
        raise ValueError(f"the result is {size[1]}x{size[0]} pixels, the frame holds pictures of the shape {expected}; "
                         "expected what the method made of the framed photo. Connect the decoded result")


def _resized(picture: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(picture.shape[-2:]) == size:
        return picture
    return F.interpolate(picture, size=size, mode="bicubic", antialias=True, align_corners=False)
