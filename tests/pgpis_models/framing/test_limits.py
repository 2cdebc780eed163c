"""What is said beforehand of pictures that will be a guess, on drawn bodies whose turn is known."""

import numpy as np
import pytest

from pgpis_models.body.camera import Camera
from pgpis_models.body.picture import Seen, see
from pgpis_models.body.state import State
from pgpis_models.framing.limits import limits
from pgpis_models.poses.heading import eyes_apart, heading_of
from pgpis_models.poses.keypoints import Keypoints
from pgpis_models.surface.unseen import share_seen

SIZE = (128, 96)
YAWS = range(-180, 180, 30)


@pytest.fixture(scope="module")
def turned() -> dict[int, Seen]:
    return {yaw: see(State(root=(float(yaw), 0.0, 0.0)), SIZE) for yaw in YAWS}


def apart(a: int, b: int) -> int:
    return abs((a - b + 180) % 360 - 180)


def test_the_joints_say_where_a_body_faces(turned):
    for yaw, seen in turned.items():
        found = heading_of(seen.pose)
        assert abs(found.away - abs(yaw)) < 12
        assert found.side == (0 if yaw in (0, -180) else 1 if yaw > 0 else -1), yaw
        mirrored = heading_of(seen.pose.mirrored())
        assert abs(mirrored.away - found.away) < 1e-6 and mirrored.side == -found.side


def test_a_view_from_far_around_is_warned_of_and_a_near_one_is_not(turned):
    for a in YAWS:
        for b in YAWS:
            said = limits(poses=[turned[b].pose], source_poses=[turned[a].pose])
            if apart(a, b) != 120:   # the border
                assert bool(said) == (apart(a, b) > 120), (a, b)
            assert not said or "turned by" in said[0]
    many = limits(poses=[turned[yaw].pose for yaw in (0, -180, 30, 150)], source_poses=[turned[0].pose])
    assert many[0].startswith("targets 2, 4 are seen from a view turned by 1")
    assert limits(poses=[turned[0].pose] * 2, source_poses=[turned[0].pose] * 3) == []   # who is whose is not known


def test_of_photos_of_one_person_the_best_counts_for_each_target(turned):
    both, targets = [turned[0], turned[-180]], [turned[30], turned[150]]
    poses, iuvs = ([[getattr(one, name) for one in some] for some in (both, targets)] for name in ("pose", "iuv"))
    given = {"source_poses": poses[0], "poses": poses[1][::-1], "source_denseposes": iuvs[0], "denseposes": iuvs[1][::-1]}
    assert len(limits(**given)) == 2 and limits(**given, together=True) == []
    front = {name: value[:1] if "source" in name else value for name, value in given.items()}
    assert limits(**front, together=True) == limits(**front) != []


def test_what_the_photo_does_not_show_is_counted(turned):
    front = turned[0].iuv
    shares = [share_seen(front, turned[yaw].iuv) for yaw in (0, 30, 60, 90, 120, 150, -180)]
    assert shares == sorted(shares, reverse=True) and shares[0] == 1 and shares[-1] < 0.1
    said = limits(denseposes=[turned[0].iuv, turned[-180].iuv], source_denseposes=[front])
    assert len(said) == 1 and said[0].startswith(f"the photo shows {shares[-1]:.0%} of the body's surface that target 2")
    assert limits(denseposes=[turned[30].iuv], source_denseposes=[front]) == []


def test_a_small_face_is_warned_of():
    """The exact distance of the eyes of a body that faces the camera, near and far."""
    for zoom in (0.4, 0.6, 1.0):
        seen = see(State(camera=Camera(zoom=zoom)), (256, 192))
        exact = float(np.linalg.norm(seen.pose.xy[14] - seen.pose.xy[15]))
        assert abs(eyes_apart(seen.pose, (256, 192)) / exact - 1) < 0.2
        said = limits(size=(256, 192), poses=[seen.pose])
        assert bool(said) == (exact < 8) == (zoom < 1)
        assert limits(size=(1024, 768), poses=[seen.pose]) == []
    assert "the face of target 1 is small: its eyes would be" in limits(size=(96, 72), poses=[seen.pose.scaled(0.3)])[0]


def test_of_poses_that_do_not_say_nothing_is_said():
    nobody = Keypoints(np.zeros((18, 2)), np.zeros(18, bool), SIZE)
    portrait = Keypoints(np.random.default_rng(0).uniform(5, 60, (18, 2)), np.arange(18) < 6, SIZE)   # no hips
    assert heading_of(nobody) is heading_of(portrait) is None and eyes_apart(nobody, SIZE) is None
    assert limits(size=SIZE, poses=[nobody], source_poses=[nobody]) == []
    assert share_seen(see(State(), SIZE).iuv, see(State(camera=Camera(x=9.0)), SIZE).iuv) is None
