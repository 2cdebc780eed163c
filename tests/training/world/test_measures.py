"""The measures of what one sees, on made-up pictures whose answers are known."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from training.world.bank import Bank
from training.world.measures import (
    EYE_CONTRAST,
    GAP_ROWS,
    MEASURES,
    SOURCE_VIEW,
    TARGET_VIEW,
    eye_there,
    eyes_there,
    gradient,
    legs_apart,
    maps,
    mask_overlap,
    person_mask,
    pictures,
    score,
)
from training.world.wardrobe import BACKGROUND

SIZE = (96, 64)
TRUNK, R_LEG, L_LEG = 2, 9, 10                  # DensePose parts
COLOURS = {TRUNK: (200, 30, 40), R_LEG: (30, 60, 160), L_LEG: (40, 70, 170)}
GAP = 4                                         # columns of ground between the legs
EYES = np.array([[24.0, 16.0], [40.0, 16.0]])   # x, y of right and left
ZOOM = 1.5                                      # so that the patch around an eye reaches 6 pixels to each side


def ground(count: int = 1) -> np.ndarray:
    """(count, H, W, 3) uint8."""
    return np.broadcast_to((np.array(BACKGROUND) * 255).round().astype(np.uint8), (count, *SIZE, 3)).copy()


def person(gap: int = GAP, rows: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """A trunk with two eyes on it and two legs under it, `rows` long and `gap` columns apart: picture (H, W, 3) uint8, and
    part (H, W) uint8."""
    part = np.zeros(SIZE, np.uint8)
    part[6:50, 14:50] = TRUNK
    part[50:50 + rows, 14:32 - gap // 2] = R_LEG
    part[50:50 + rows, 32 + gap - gap // 2:50] = L_LEG
    picture = ground()[0]
    for number, colour in COLOURS.items():
        picture[part == number] = colour
    for x, y in EYES.astype(int):
        picture[y - 2:y + 3, x - 4:x + 5] = 240
        picture[y - 1:y + 2, x - 1:x + 2] = 20
    return picture, part


def bank_of(target: np.ndarray, part: np.ndarray, source: np.ndarray | None = None, source_part: np.ndarray | None = None,
            zoom: float = ZOOM) -> Bank:
    """One person: the target, and a source that is the same unless given. uv grows down and along the picture."""
    source, source_part = target if source is None else source, part if source_part is None else source_part
    u, v = np.meshgrid(np.linspace(0, 255, SIZE[1]), np.linspace(0, 255, SIZE[0]))
    uv = np.stack([u, v], -1).astype(np.uint8)[None, None].repeat(2, 1)
    return Bank(image=np.stack([source, target])[None], part=np.stack([source_part, part])[None], uv=uv,
                keypoints=np.zeros((1, 2, 18, 2), np.float32), detected=np.ones((1, 2, 18), bool),
                eyes=np.broadcast_to(EYES, (1, 2, 2, 2)).astype(np.float32), eyes_visible=np.ones((1, 2, 2), bool),
                zoom=np.full((1, 2), zoom, np.float32), first=0)


@pytest.fixture(scope="module")
def bank():
    """The source shows the trunk only, so that the legs are hidden."""
    picture, part = person()
    source, source_part = picture.copy(), part.copy()
    source[part != TRUNK], source_part[part != TRUNK] = ground()[0, 0, 0], 0
    return bank_of(picture, part, source, source_part)


@pytest.fixture(scope="module")
def target(bank):
    return pictures(bank, TARGET_VIEW)


@pytest.fixture(scope="module")
def part(bank):
    return maps(bank, TARGET_VIEW)[0]


def test_identical_pictures_score_perfectly(bank, target):
    row = score(target, bank)
    assert row.keys() == MEASURES.keys()
    assert math.isinf(row.pop("psnr")) and row.pop("ssim") == pytest.approx(1.0)
    assert (row.pop("texel_error_seen"), row.pop("texel_error_hidden")) == (0.0, 0.0)
    assert row == {name: 1.0 for name in ("mask_iou", "legs", "part_colour", "sharpness", "eyes")}


def test_the_source_in_the_targets_place_misses_what_it_does_not_show(bank, target):
    row = score(pictures(bank, SOURCE_VIEW), bank)
    trunk, legs = (bank.part[0, TARGET_VIEW] == TRUNK).sum(), np.isin(bank.part[0, TARGET_VIEW], (R_LEG, L_LEG)).sum()
    assert row["mask_iou"] == pytest.approx(trunk / (trunk + legs))
    assert row["texel_error_seen"] == 0.0 and row["texel_error_hidden"] > 0.2
    # the legs are not in the source, so their colour is not asked for; ground between legs that are not there is ground
    assert row["part_colour"] == 1.0 and row["eyes"] == 1.0 and row["legs"] == 1.0


def test_errors_of_texels_are_those_of_the_parts_that_are_painted(bank, target, part):
    dark = target - 0.1 * (part == TRUNK)[:, None]
    row = score(dark, bank)
    assert row["texel_error_seen"] == pytest.approx(0.1, abs=1e-6) and row["texel_error_hidden"] == 0.0
    # Euclidean 0.173 > 0.12, of the only part that counts
    assert row["part_colour"] == 0.0
    assert score(target - 0.06 * (part == TRUNK)[:, None], bank)["part_colour"] == 1.0


def test_a_shifted_mask_overlaps_by_exactly_what_is_left():
    pair = torch.tensor(np.array(ground(3)) / 255).float().permute(0, 3, 1, 2)
    for row, shift in enumerate((0, 5, 20)):
        pair[row, :, 20:70, 10 + shift:30 + shift] = torch.tensor((0.2, 0.5, 0.1))[:, None, None]
    assert mask_overlap(pair, pair[:1].expand(3, -1, -1, -1)).tolist() == pytest.approx([1.0, 15 / 25, 0.0])
    assert person_mask(pair)[1].sum() == 50 * 20


@pytest.mark.parametrize("distance, seen", [(0.065, False), (0.075, True)])
def test_what_is_near_the_grounds_colour_is_ground(distance, seen):
    picture = torch.tensor(BACKGROUND)[None, :, None, None].repeat(1, 1, 4, 4)
    picture[:, 1, 2, 2] -= distance
    assert bool(person_mask(picture).any()) is seen


def fill_gap(target: torch.Tensor, rows: slice, columns: slice = slice(30, 34)) -> torch.Tensor:
    made = target.clone()
    made[:, :, rows, columns] = torch.tensor(COLOURS[R_LEG])[:, None, None] / 255
    return made


def test_fused_legs_are_not_apart(target, part):
    assert legs_apart(target, target, part) == 1.0
    assert legs_apart(fill_gap(target, slice(50, 80)), target, part) == 0.0
    assert legs_apart(fill_gap(target, slice(50, 65)), target, part) == 1.0    # half of the 30 rows show it
    assert legs_apart(fill_gap(target, slice(50, 66)), target, part) == 0.0
    assert legs_apart(fill_gap(target, slice(50, 80), slice(30, 32)), target, part) == 1.0   # two columns of ground are left
    assert legs_apart(fill_gap(target, slice(50, 80), slice(30, 33)), target, part) == 0.0   # one is too few


@pytest.mark.parametrize("gap, rows, counts", [(2, GAP_ROWS, True), (1, 30, False), (2, GAP_ROWS - 1, False)])
def test_targets_count_that_show_enough_ground_between_the_legs(gap, rows, counts):
    bank = bank_of(*person(gap, rows))
    target = pictures(bank, TARGET_VIEW)
    found = legs_apart(target, target, maps(bank, TARGET_VIEW)[0])
    assert found == 1.0 if counts else math.isnan(found)


def test_only_the_targets_with_a_gap_share_in_the_mean(target, part):
    both, parts = torch.cat([fill_gap(target, slice(50, 80)), target]), part.repeat(2, 1, 1)
    assert legs_apart(both, target.repeat(2, 1, 1, 1), parts) == 0.5
    closed = fill_gap(target, slice(50, 80))
    assert legs_apart(both, torch.cat([target, closed]), parts) == 0.0     # the second is not asked for


def test_a_blurred_picture_loses_sharpness(bank, target, part):
    mean = target.mean((2, 3), keepdim=True)
    assert score(mean + 0.5 * (target - mean), bank)["sharpness"] == pytest.approx(0.5, abs=1e-4)
    picture, parts = person()
    stripes = np.where(np.arange(SIZE[1]) % 4 < 2, 0, 60)[:, None] * (parts > 0)[..., None]
    striped = bank_of((picture * 0.7 + stripes).astype(np.uint8), parts)
    sharp = pictures(striped, TARGET_VIEW)
    blurred = F.avg_pool2d(F.pad(sharp, (2, 2, 2, 2), mode="replicate"), 5, 1)
    assert score(blurred, striped)["sharpness"] < 0.5
    assert score(blurred, striped, reference=blurred)["sharpness"] == pytest.approx(1.0)
    # of the person alone: noise on the ground counts for nothing
    noisy = target + 0.03 * torch.randn(target.shape, generator=torch.Generator().manual_seed(0)) * (part == 0)[:, None]
    assert score(noisy, bank)["sharpness"] == pytest.approx(1.0)


def test_the_gradient_is_the_mean_difference_of_neighbours_within_the_mask():
    picture = torch.zeros(1, 3, 3, 3)
    picture[0, :, 1, 1] = 0.6
    where = torch.ones(1, 3, 3, dtype=torch.bool)
    assert float(gradient(picture, where)) == pytest.approx(4 * 0.6 / 12)
    where[0, 1, 2] = False    # with it two of the rows' pairs and two of the columns' ones, one of which differs
    assert float(gradient(picture, where)) == pytest.approx(3 * 0.6 / 9)


def without_eye(target: torch.Tensor, side: int) -> torch.Tensor:
    x, y = EYES[side].astype(int)
    made = target.clone()
    made[:, :, y - 6:y + 7, x - 6:x + 7] = torch.tensor(COLOURS[TRUNK])[:, None, None] / 255
    return made


def test_an_eye_that_is_painted_over_is_not_there(bank, target):
    assert eyes_there(target, target, bank) == 1.0
    assert eyes_there(without_eye(target, 0), target, bank) == 0.5
    assert eyes_there(without_eye(without_eye(target, 0), 1), target, bank) == 0.0


@pytest.mark.parametrize("shift, there", [((0, 1), True), ((1, 1), True), ((-1, 0), True), ((0, 4), False), ((4, 0), False)])
def test_an_eye_may_be_a_pixel_off(shift, there, target):
    moved = torch.roll(target, shift, (2, 3))
    assert eye_there(moved[0], target[0], EYES[0], ZOOM) is there


@pytest.mark.parametrize("contrast, there", [(EYE_CONTRAST + 0.05, True), (EYE_CONTRAST - 0.05, False), (-1.0, False)])
def test_an_eye_needs_its_contrast(contrast, there, target):
    middle = target[..., 10:23, 18:31].mean((2, 3), keepdim=True)
    assert eye_there((middle + contrast * (target - middle))[0], target[0], EYES[0], ZOOM) is there


def test_eyes_are_asked_for_in_closer_views_where_they_show(target):
    picture, part = person()
    far = bank_of(picture, part, zoom=1.0)
    assert math.isnan(eyes_there(target, target, far))
    one = bank_of(picture, part)
    one.eyes_visible[0, TARGET_VIEW, 1] = False
    assert eyes_there(without_eye(target, 1), target, one) == 1.0 and eyes_there(without_eye(target, 0), target, one) == 0.0


def test_an_eye_at_the_edge_of_the_picture_is_measured_too(target):
    cut = target[..., 16:, 24:]   # the right eye's middle is the corner now
    assert eye_there(cut[0], cut[0], np.zeros(2), ZOOM) and not eye_there(cut[0] * 0 + 0.5, cut[0], np.zeros(2), ZOOM)
