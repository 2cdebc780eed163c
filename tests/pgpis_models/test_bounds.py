"""Work grows with what is made, not with what a text or a widget asks for."""

import time

import numpy as np
import pytest
import torch

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
    def seconds() -> float:
        begun = time.process_time()
        skeleton_region(drawn(2048, 2048), (2048, 2048), 256.0, 0.0001)
        return time.process_time() - begun
    assert min(seconds(), seconds()) < 1   # a direct sum takes minutes


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
