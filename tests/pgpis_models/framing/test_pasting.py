"""What was made goes back into the photo: feathered, in its colours, and everything else equal bit for bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pgpis_models.cfld.config import CONFIGS as CFLD
from pgpis_models.framing.boxes import Frame, layout_of
from pgpis_models.framing.fitting import fit_person
from pgpis_models.framing.pasting import edge_weight, pasted, pasted_picture
from pgpis_models.poses.keypoints import Keypoints
from tests.helpers.photos import GROUND, figure, photo

DEMO, FULL = layout_of(CFLD["demo"]), layout_of(CFLD["full"])
SIZE = (768, 512)


@pytest.fixture(scope="module")
def scene():
    """A photo with somebody in its middle, and that person framed for the demo."""
    one = photo(SIZE, (figure(1), 110, 200), noise=5)
    return one, fit_person(one.picture, DEMO, people=one.people)


def as_tensor(picture):
    return torch.from_numpy(picture.copy()).permute(2, 0, 1).float() / 255


def rows_of(frame):
    """The box's part within the photo as slices."""
    x0, y0, x1, y1 = frame.box
    return slice(max(y0, 0), min(y1, frame.original[0])), slice(max(x0, 0), min(x1, frame.original[1]))


def test_everything_outside_the_frame_is_equal_bit_for_bit(scene):
    one, fitted = scene
    made = torch.rand(3, 256, 192, generator=torch.Generator().manual_seed(0))
    original = as_tensor(one.picture)
    before = original.clone()
    result = pasted(made, fitted.frame, original)
    rows, columns = rows_of(fitted.frame)
    outside = torch.ones(SIZE, dtype=torch.bool)
    outside[rows, columns] = False
    assert outside.sum() > 0.4 * outside.numel()
    assert torch.equal(result[:, outside], original[:, outside]) and torch.equal(original, before)
    assert (result[:, rows, columns] != original[:, rows, columns]).float().mean() > 0.95
    in_bytes = pasted_picture(made, fitted.frame, one.picture)
    assert in_bytes.dtype == np.uint8 and np.array_equal(in_bytes[outside.numpy()], one.picture[outside.numpy()])


def test_inside_the_feather_is_what_was_made_at_the_resolution_of_the_photo(scene):
    one, fitted = scene
    made = torch.rand(3, 256, 192, generator=torch.Generator().manual_seed(0))
    result = pasted(made, fitted.frame, as_tensor(one.picture), match=False, feather=8)
    x0, y0, x1, y1 = fitted.frame.box
    expected = F.interpolate(made[None], (y1 - y0, x1 - x0), mode="bicubic", antialias=True).clamp(0, 1)[0]
    inner = slice(9, -9), slice(9, -9)
    rows, columns = rows_of(fitted.frame)
    assert torch.equal(result[:, rows, columns][(slice(None), *inner)], expected[(slice(None), *inner)])


@pytest.mark.parametrize("box", [(100, 100, 400, 500), (-40, -30, 260, 370), (300, 500, 600, 900), (0, 0, 512, 768)])
def test_the_feather_falls_towards_edges_within_the_photo_alone(box):
    frame = Frame(SIZE, box, (256, 192), (256, 192), "", b"")
    weight = edge_weight(frame, 12)
    height, width = box[3] - box[1], box[2] - box[0]
    assert weight.shape == (height, width) and weight.min() > 0 and weight.max() == 1
    for line, within in ((weight[height // 2], box[0] > 0), (weight[height // 2, ::-1], box[2] < SIZE[1]),
                         (weight[:, width // 2], box[1] > 0), (weight[::-1, width // 2], box[3] < SIZE[0])):
        fade = 12 if len(line) == height else 9   # a person may come nearer to the sides
        if within:
            assert line[0] < 0.04 and line[fade] == 1 and (np.diff(line[:fade + 1]) > 0).all()
        else:
            assert (line[:20] == 1).all()


def test_the_feather_never_reaches_the_person(scene):
    one, _ = scene
    wide = one.people[0].xy.copy()
    wide[[4, 7], 0] += (-150, 150)   # arms out, which the frame is widened for
    for targets in ([], [Keypoints(wide, one.people[0].present, SIZE)]):
        fitted = fit_person(one.picture, DEMO, people=one.people, densepose=one.iuv, targets=targets)
        weight = edge_weight(fitted.frame, 500)
        for pose in targets:
            x0, y0, *_ = fitted.frame.box
            hands = (wide[[4, 7]] - (x0, y0)).astype(int)
            assert all((weight[y - 10:y + 10, x - 10:x + 10] == 1).all() for x, y in hands) and pose
    x0, y0, x1, y1 = fitted.frame.box
    person = F.interpolate(torch.from_numpy(fitted.mask)[None, None].float(), (y1 - y0, x1 - x0))[0, 0].numpy() > 0
    assert (weight[person] == 1).all()


def test_the_photo_framed_and_pasted_back_is_the_photo(scene):
    one, fitted = scene
    result = pasted(as_tensor(fitted.photo), fitted.frame, as_tensor(one.picture))
    assert (result - as_tensor(one.picture)).abs().mean() < 0.006   # of which it is a smaller copy


def test_colours_are_matched_at_the_seam(scene):
    """A result of another tone, more so towards one side, comes back in the tones of the photo; the person with it."""
    one, fitted = scene
    slope = torch.linspace(-0.05, 0.05, 192)
    shift = torch.tensor([0.08, -0.05, 0.03])[:, None, None]
    off = (as_tensor(fitted.photo) + shift + slope).clamp(0, 1)
    plain, right = (pasted(off, fitted.frame, as_tensor(one.picture), match=match) for match in (False, True))
    rows, columns = rows_of(fitted.frame)
    errors = [(result - as_tensor(one.picture))[:, rows, columns].abs().mean().item() for result in (plain, right)]
    assert errors[0] > 0.05 and errors[1] < 0.012, errors


def test_somebody_at_the_edge_does_not_recolour_the_person(scene):
    """The photo shows a dark pillar across a third of one edge, which was not made: matching leaves the rest alone."""
    one, fitted = scene
    x0, y0, x1, y1 = fitted.frame.box
    changed = one.picture.copy()
    changed[y0 + 60:y0 + 60 + (y1 - y0) // 3, x0 - 30:x0 + 30] = 20
    frame = replace(fitted.frame, thumbnail=b"")
    result, before = (pasted(as_tensor(fitted.photo), frame, as_tensor(picture)) for picture in (changed, one.picture))
    inner = slice(y0 + 30, y1 - 30), slice(x0 + 60, x1 - 60)
    assert (result - before)[(slice(None), *inner)].abs().mean() < 0.003


def test_a_mask_of_the_result_limits_what_is_pasted(scene):
    one, fitted = scene
    made, original = torch.zeros(3, 256, 192), as_tensor(one.picture)
    half = torch.zeros(256, 192)
    half[:, :96] = 1
    result = pasted(made, fitted.frame, original, match=False, mask=half)
    x0, y0, x1, y1 = fitted.frame.box
    middle = (x0 + x1) // 2
    assert torch.equal(result[:, :, middle + 4:], original[:, :, middle + 4:])
    assert (result[:, y0 + 40:y1 - 40, x0 + 40:middle - 4] == 0).all()


def test_a_squashed_result_is_unsquashed():
    """Methods that make squares show a part of 11 to 16 in them."""
    one = photo(SIZE, (figure(1), 110, 200))
    fitted = fit_person(one.picture, FULL, people=one.people)
    squashed = F.interpolate(as_tensor(fitted.photo)[None], (512, 512), mode="bicubic", antialias=True).clamp(0, 1)[0]
    for made in (squashed, as_tensor(fitted.photo), F.interpolate(squashed[None], (768, 768), mode="bilinear")[0]):
        result = pasted(made, fitted.frame, as_tensor(one.picture))
        assert (result - as_tensor(one.picture)).abs().mean() < 0.01


def test_a_frame_that_reaches_beyond_the_photo_loses_nothing():
    one = photo((420, 300), (figure(3), 0, 20))
    fitted = fit_person(one.picture, DEMO, people=one.people)
    assert fitted.frame.box[3] > 420 or fitted.frame.box[0] < 0 or fitted.frame.box[1] < 0 or fitted.frame.box[2] > 300
    result = pasted_picture(as_tensor(fitted.photo), fitted.frame, one.picture)
    assert result.shape == one.picture.shape and np.abs(result.astype(int) - one.picture).mean() < 2


def test_photos_and_results_of_another_frame_are_refused(scene):
    one, fitted = scene
    made, original = torch.rand(3, 256, 192), as_tensor(one.picture)
    with pytest.raises(ValueError, match="original is 300x200 pixels, the PGPIS_FRAME is of a photo of 512x768"):
        pasted(made, fitted.frame, torch.rand(3, 200, 300))
    with pytest.raises(ValueError, match="not the photo that the PGPIS_FRAME was made of"):
        pasted(made, fitted.frame, torch.zeros(3, *SIZE))
    with pytest.raises(ValueError, match="result is 512x768 pixels.*192x256.*Connect the decoded result"):
        pasted(original, fitted.frame, original)
    with pytest.raises(ValueError, match="feather is -1"):
        pasted(made, fitted.frame, original, feather=-1)
    # two people one after the other: a photo in which somebody was changed is still that photo
    again = pasted(made, fitted.frame, pasted(made, fitted.frame, original))
    assert again.shape == original.shape and (GROUND > 0).all()
