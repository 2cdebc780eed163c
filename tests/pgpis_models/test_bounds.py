"""Work grows with what is made, not with what a text or a widget asks for."""

import time

import numpy as np
import pytest
import torch

from pgpis_models.framing import pasting
from pgpis_models.framing.finding import people_in
from pgpis_models.framing.limbs import _strip
from pgpis_models.garments.feathering import _highest
from pgpis_models.parts.query_maps import chosen_queries
from pgpis_models.poses import region
from pgpis_models.poses.formats import LARGEST_SIDE, MOST_PEOPLE, from_pose_keypoint
from pgpis_models.poses.region import skeleton_region


def drawn(height, width, seed=0):
    picture = torch.zeros(1, 3, height, width, dtype=torch.uint8)
    picture[:, :, height // 5:height // 2, width // 3] = 255
    picture[:, :, height // 2, width // 4:width // 2 + seed] = 255
    return picture


@pytest.mark.parametrize("size", [(96, 64), (131, 77)])
@pytest.mark.parametrize("blur", [3.0, 40.0, 256.0])
@pytest.mark.parametrize("threshold", [0.0001, 0.004, 0.3])
def test_a_wide_blur_is_that_of_the_sum_written_out(size, blur, threshold, monkeypatch):
    """In float64, pixel by pixel; texels at the very edge of the cut may fall to either side."""
    picture = drawn(*size)
    sigma = blur * size[0] / region.REFERENCE
    monkeypatch.setattr(region, "SHORT", 4)   # so that small pictures take the way of large ones
    found = skeleton_region(picture, size, blur, threshold)[0, 0].numpy() > 0
    sums = np.zeros(size)
    rows, columns = np.indices(size)
    for y, x in zip(*np.nonzero(picture[0, 0].numpy()), strict=True):
        sums += np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * sigma ** 2))
    share = sums / sums.max()
    clear = np.abs(share / threshold - 1) > 1e-3
    # what the cut kernel leaves out is far below the threshold's own share
    assert (found == (share > threshold))[clear].mean() > 0.999


def test_the_widest_blur_of_the_widget_takes_no_longer_than_the_picture_is_large():
    # a direct sum takes minutes
    assert seconds(lambda: skeleton_region(drawn(2048, 2048), (2048, 2048), 256.0, 0.0001)) < 1


def seconds(work) -> float:
    """Of processor time, the better of two."""
    def once() -> float:
        begun = time.process_time()
        work()
        return time.process_time() - begun
    return min(once(), once())


def test_patches_of_a_mask_are_counted_once_however_many_there_are():
    specks = np.random.default_rng(0).random((1024, 1024)) < 0.2
    squares = (np.indices((1024, 1024)) % 8 < 4).all(0)
    assert people_in(squares).max() == 128 ** 2 and set(np.unique(people_in(squares))) == set(range(128 ** 2 + 1))
    assert seconds(lambda: people_in(specks)) < 1   # one by one they take a minute
    assert seconds(lambda: people_in(squares)) < 1


def test_the_highest_value_around_is_that_of_the_window_written_out():
    values = np.random.default_rng(0).random((37, 5)).astype(np.float32)
    for radius in (1, 4, 36, 100):
        wanted = [values[max(row - radius, 0):row + radius + 1].max(0) for row in range(len(values))]
        np.testing.assert_array_equal(_highest(values, radius), wanted)


def test_a_limb_is_drawn_where_it_lies_alone():
    """Against every pixel of the picture; limbs may leave it."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        start, end, half = rng.uniform(-40, 100, 2), rng.uniform(-40, 100, 2), rng.uniform(1, 30)
        maps = np.zeros((64, 48), np.uint8), np.zeros((64, 48), np.float32), np.zeros((64, 48), np.float32)
        _strip(maps, start, end, half, 0.1, 0.3, 7)
        along = (end - start) / np.linalg.norm(end - start)
        places = np.stack(np.meshgrid(np.arange(48), np.arange(64)), -1) + 0.5 - start
        t, s = places @ along / np.linalg.norm(end - start), places @ (-along[1], along[0]) / half
        np.testing.assert_array_equal(maps[0] == 7, (t >= -0.1) & (t <= 1.3) & (np.abs(s) <= 1))


def test_a_seam_of_many_pixels_tells_its_plane_by_some_of_them(monkeypatch):
    y, x = torch.meshgrid(torch.linspace(-0.5, 0.5, 200), torch.linspace(-0.5, 0.5, 300), indexing="ij")
    plane = torch.stack([0.1 * x + 0.02, 0.05 * y, 0.03 - 0.04 * x])
    made = torch.rand(3, 200, 300, generator=torch.Generator().manual_seed(0)) / 4 + 0.3
    weight = torch.full((200, 300), 0.5)
    monkeypatch.setattr(pasting, "MOST_FITTED", 1000)
    found = pasting.seam_difference(made, made + plane, weight)
    assert float((found - plane).abs().max()) < 2e-3


@pytest.mark.parametrize("text", ["0-1000000000", "9" * 5000, "0-" + "9" * 5000, "²", "1-", "-3", "3-1", "one"])
def test_queries_that_no_checkpoint_has_are_refused_before_they_are_counted(text):
    with pytest.raises(ValueError, match="queries .*(has 80 of that kind|neither a number nor a range)") as refusal:
        chosen_queries(text, 80)
    assert len(str(refusal.value)) < 300


def test_a_query_is_shown_once():
    assert chosen_queries(",".join(["0-79"] * 1000), 80) == list(range(80))
    assert chosen_queries("7, 0-2, 1", 80) == [7, 0, 1, 2]


def frame(people, side=64):
    return [{"people": people, "canvas_width": side, "canvas_height": side}]


def test_a_frame_lists_people_not_a_crowd():
    one = {"pose_keypoints_2d": [5.0, 6.0, 1.0] * 18}
    assert len(from_pose_keypoint(frame([one] * MOST_PEOPLE))) == 1
    with pytest.raises(ValueError, match="lists 1000000 people; expected 1000 or fewer"):
        from_pose_keypoint(frame([one] * 10 ** 6))


def test_a_canvas_that_cannot_be_drawn_is_refused():
    one = {"pose_keypoints_2d": [5.0, 6.0, 1.0] * 18}
    assert from_pose_keypoint(frame([one], LARGEST_SIDE))[0].canvas == (LARGEST_SIDE, LARGEST_SIDE)
    with pytest.raises(ValueError, match=f"canvas_width = {LARGEST_SIDE + 1}.*1 to 16384"):
        from_pose_keypoint(frame([one], LARGEST_SIDE + 1))
