"""Several photos of one person -> one texture map: at each texel the photos that show it, weighed by how well they do.

Weights, not priorities: the order of the photos changes nothing. What no photo shows is filled afterwards, as `texture.warp`
fills it. Ours; none of the papers reads more than one photo.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .densepose import IUV, PARTS, NobodyFound, check_picture
from .filling import CANVAS, gathered, not_black, opencv, packed, texels, tiles_of
from .layout import SMPL, TILE, smpl_table, tiles
from .texture import Texture, filled, region_of, to_smpl
from .viewing import quality, sharpness

REACH = (2.0, 12.0)   # texels that a pixel shows around its own, at least and at most: to its neighbours', and no farther
FEATHER = 12.0        # texels over which a photo fades out towards what it does not show
SCALE = 1 << 38       # of the whole-number weights, whose sums are exact, so that the order of photos changes no bit
CLEARLY = 0.1         # of the part's best weight in either photo: from there on a texel's colours are compared
SHARED = 200          # texels that two photos must both show clearly before their colours are compared


@dataclass(frozen=True, eq=False)
class Merged:
    """texture: one map, `seen` where a photo shows the texel. shares: (N, H, W) float32, each photo's part in the texel's
    colour, summing to 1 where it is seen and 0 elsewhere. differences: (N, N) float32, mean distance (RGB, 0..1) of the
    parts' colours where two photos show the same texels; nan where they share too few."""

    texture: Texture
    shares: np.ndarray
    differences: np.ndarray


def merge(images: Sequence[np.ndarray], iuvs: Sequence[IUV], layout: str = "atlas", mode: str = "fast", fill: str = "near",
          region: np.ndarray | None = None, watched: Callable[[Iterable], Iterable] = iter) -> Merged:
    """N photos (H, W, 3) uint8 of any sizes, not black where they show something, with the IUV of each -> `Merged`.

    layout, mode, fill, region, watched: as of `texture.warp`. A photo that comes again, with the same IUV, counts once, at
    its first place. Raises ValueError for counts and sizes that differ, NobodyFound for a photo that shows no part. Needs
    OpenCV.
    """
    region = region_of(layout, mode, fill, region)
    _check(images, iuvs)
    own = [next(j for j in range(i + 1) if _same(images[i], iuvs[i], images[j], iuvs[j])) for i in range(len(images))]
    first = sorted(set(own))
    sharp = np.array([sharpness(images[i], iuvs[i]) for i in first])
    views = [_view(images[i], iuvs[i], region, clear) for i, clear in watched(zip(first, sharp / sharp.max(), strict=True))]
    peak = max(weight.max() for _, weight in views)
    whole = [np.where(weight > 0, np.rint(weight / peak * SCALE) + 1, 0).astype(np.int64) for _, weight in views]
    total = sum(whole)
    mixed = sum(colours.astype(np.int64) * weight[..., None] for (colours, _), weight in zip(views, whole, strict=True))
    divisor = np.maximum(total, 1)[..., None]
    canvas = packed(((2 * mixed + divisor) // (2 * divisor)).astype(np.uint8))
    texture = filled(canvas, canvas != 0, region, mode, fill)
    shares = np.zeros((len(images), *texture.seen.shape), np.float32)
    for index, weight in zip(first, whole, strict=True):
        shares[index] = gathered((weight / np.maximum(total, 1)).astype(np.float32))
    differences = np.full((len(images), len(images)), np.nan, np.float32)
    flat = [(tiles(gathered(colours)), tiles(gathered(weight))) for colours, weight in views]
    for i, at in enumerate(own):
        for j, to in enumerate(own):
            differences[i, j] = 0 if at == to else _difference(flat[first.index(at)], flat[first.index(to)])
    if layout == "smpl":
        table = smpl_table()
        shares = shares.reshape(len(images), -1)[:, table.to_smpl].reshape(-1, *SMPL) * table.mapped.reshape(SMPL)
        texture = to_smpl(texture)
    return Merged(texture, shares * texture.seen, differences)


def _check(images: Sequence[np.ndarray], iuvs: Sequence[IUV]) -> None:
    if len(images) != len(iuvs) or not len(images):
        raise ValueError(f"{len(images)} photos came with {len(iuvs)} DensePose; expected as many of each, at least one. "
                         f"Estimate DensePose on these very photos.")
    for number, (image, iuv) in enumerate(zip(images, iuvs, strict=True), start=1):
        check_picture(image, f"photo {number}")
        if image.shape[:2] != iuv.size:
            raise ValueError(f"photo {number} has {image.shape[1]}x{image.shape[0]} pixels, its DensePose {iuv.size[1]}x"
                             f"{iuv.size[0]}; expected the same. Estimate DensePose on this very picture.")
        if not (iuv.part.astype(bool) & not_black(image)).any():
            raise NobodyFound(f"photo {number} of {len(images)} shows no body part; expected a person in each. Leave it "
                              f"out, or check that its DensePose is of this picture.")


def _same(image: np.ndarray, iuv: IUV, other: np.ndarray, others: IUV) -> bool:
    return image.shape == other.shape and np.array_equal(image, other) and all(
        np.array_equal(getattr(iuv, name), getattr(others, name)) for name in ("part", "u", "v"))


def _view(image: np.ndarray, iuv: IUV, region: np.ndarray, clear: float) -> tuple[np.ndarray, np.ndarray]:
    """One photo on the canvas: colours (H, W, 3) uint8, and weight (H, W) float64, above 0 where it shows the texel. Each
    texel takes the nearest one that a pixel hits, as far as that pixel reaches. clear: 0..1, the photo's sharpness."""
    cv2 = opencv()
    good, step = (each.ravel() for each in quality(iuv))
    reach = np.clip(0.75 * step + 1, *REACH)
    good = np.square(good.astype(np.float64) * max(clear, 1e-3))
    pixel, texel = texels(iuv, gaps=True)
    shown = not_black(image).ravel()[pixel] & _inner(iuv).ravel()[pixel]
    hit = np.full(CANVAS[0] * CANVAS[1], -1, np.int64)
    hit[texel[shown]] = pixel[shown]   # of pixels that share a texel the last stays, as in `scatter`
    hit = hit.reshape(CANVAS)
    colours, weight = np.zeros((*CANVAS, 3), np.uint8), np.zeros(CANVAS)
    for place in tiles_of(hit >= 0):
        known = hit[place] >= 0
        far, label = cv2.distanceTransformWithLabels((~known).view(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
        owner = np.zeros(int(label.max()) + 1, np.int64)
        owner[label[known]] = hit[place][known]
        nearest = owner[label]
        visible = known | ((far <= reach[nearest]) & region[place])
        fading = np.minimum(cv2.distanceTransform(visible.view(np.uint8), cv2.DIST_L2, 5) / FEATHER, 1)
        colours[place][visible] = image.reshape(-1, 3)[nearest[visible]]
        weight[place][visible] = (good[nearest] * fading)[visible]
    return colours, np.where(not_black(colours), np.maximum(weight, np.finfo(np.float32).tiny), 0)


def _inner(iuv: IUV) -> np.ndarray:
    """(H, W) bool: the person without the outermost pixels, into which the ground is mixed; with them for parts that have no
    others."""
    inner = opencv().erode((iuv.part > 0).astype(np.uint8), np.ones((3, 3), np.uint8)).view(bool)
    thin = np.setdiff1d(iuv.part, iuv.part[inner])
    return (inner & (iuv.part > 0)) | np.isin(iuv.part, thin[thin > 0])


def _difference(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> float:
    """Mean distance of the parts' colours over texels that both show clearly: neither the shade of grazing views nor the
    ground at an outline counts. Tiles of colours and weights. Parts weigh by those texels."""
    (colours, weight), (others, weights) = (
        (each, value.reshape(PARTS, TILE * TILE) / value.max()) for each, value in (one, other))   # whatever their scales
    both = np.minimum(weight, weights)
    both = both * (both > CLEARLY * np.maximum(weight, weights).max(1, keepdims=True))
    count = (both > 0).sum(1)
    if count.sum() < SHARED:
        return float("nan")
    kept = count > 0
    share = both[kept] / both[kept].sum(1, keepdims=True)
    means = [np.einsum("pt,ptc->pc", share, each.reshape(PARTS, TILE * TILE, 3)[kept]) / 255 for each in (colours, others)]
    return float(np.average(np.sqrt(np.square(means[0] - means[1]).sum(1)), weights=count[kept]))
