"""Which side of a person a view shows, on drawn people of whom it is known."""

from dataclasses import replace
from math import radians

import numpy as np
import pytest

from pgpis_models.poses.keypoints import Keypoints
from pgpis_models.surface.densepose import IUV
from pgpis_models.surface.facing import front_share, photo_weights, weights_of
from training.world.bank import HELD_OUT
from training.world.drawing import render
from training.world.poses import sample_pose
from training.world.wardrobe import sample_identity

SIZE = (256, 192)


def both(heading):
    pose = replace(sample_pose(3), heading=radians(heading))
    view = render(sample_identity(HELD_OUT), pose, SIZE)
    return IUV.from_picture(view.iuv()), Keypoints(view.keypoints, view.detected, SIZE)


@pytest.mark.parametrize("heading, low, high", [(0, 0.85, 1), (180, 0, 0.15), (90, 0.2, 0.8), (-90, 0.2, 0.8)])
def test_drawn_people_show_the_side_that_they_turn(heading, low, high):
    for view in both(heading):
        assert low <= front_share(view) <= high, type(view).__name__


def test_what_is_not_there_says_nothing():
    nobody = np.zeros((8, 8), np.uint8)
    assert front_share(IUV(nobody, *(np.zeros((8, 8), np.float32) for _ in "uv"))) == 0.5
    assert front_share(Keypoints(np.zeros((18, 2)), np.zeros(18, bool), SIZE)) == 0.5


def test_photos_weigh_by_what_they_show_of_the_target():
    (front, front_pose), (back, back_pose) = both(0), both(180)
    weights = photo_weights([front, back], [front_pose, back_pose])
    assert weights.shape == (2, 2) and np.allclose(weights.sum(1), 1)
    assert weights[0, 0] > 0.8 and weights[1, 1] > 0.8
    # twice the same: its share is halved, and another photo that shows nothing of the target has none
    twice = photo_weights([front, front, back], [front_pose])
    assert twice[0, 0] == twice[0, 1] and np.allclose(weights_of(3, [front_pose]), 1 / 3)
    with pytest.raises(ValueError, match="3 photos of one person came with 2 of their poses"):
        weights_of(3, [front_pose], [front, back])
