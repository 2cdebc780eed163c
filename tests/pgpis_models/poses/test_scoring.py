"""PCK, OKS and distances against the same written out joint by joint."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from pgpis_models.poses import scoring
from pgpis_models.poses.by_hand import standing
from pgpis_models.poses.keypoints import JOINTS, Keypoints

CANVAS = (320, 200)
COCO = {"nose": 26, "eye": 25, "ear": 35, "shoulder": 79, "elbow": 72, "wrist": 62, "hip": 107, "knee": 87, "ankle": 89,
        "neck": 79}   # thousandths


def changed(seed: int, size: float, missing: int = 0, canvas=CANVAS) -> Keypoints:
    rng = np.random.default_rng(seed)
    pose = standing(CANVAS)
    present = np.ones(18, bool)
    present[rng.choice(18, missing, replace=False)] = False
    return Keypoints(pose.xy + rng.normal(0, size, (18, 2)), present, CANVAS).scaled_to(canvas)


def written_out(wanted: Keypoints, found: Keypoints | None) -> dict:
    height, width = wanted.canvas
    counted = [j for j in range(18) if wanted.present[j] and 0 <= wanted.xy[j][0] < width and 0 <= wanted.xy[j][1] < height]
    joint = {name: wanted.xy[j] for j, name in enumerate(JOINTS) if wanted.present[j]}
    torso = max(math.dist(joint[f"{a} shoulder"], joint[f"{b} hip"]) for a, b in (("left", "right"), ("right", "left"))
                if f"{a} shoulder" in joint and f"{b} hip" in joint)
    xs, ys = zip(*joint.values(), strict=True)
    area = max(0.53 * (max(xs) - min(xs)) * (max(ys) - min(ys)), (torso / 4) ** 2)
    near = far = 0
    likeness, distances, missing = [], [], []
    for j in counted:
        if found is None or not found.present[j]:
            missing.append(JOINTS[j])
            likeness.append(0.0)
            continue
        x, y = (value * side / other for value, side, other in zip(found.xy[j], (width, height), found.canvas[::-1],
                                                                   strict=True))
        d = math.hypot(x - wanted.xy[j][0], y - wanted.xy[j][1])
        distances.append(d)
        near, far = near + (d <= 0.1 * torso), far + (d <= 0.2 * torso)
        sigma = COCO[JOINTS[j].split()[-1]] / 1000
        likeness.append(math.exp(-d * d / (2 * area * (2 * sigma) ** 2)))
    return {"pck_near": near / len(counted), "pck_far": far / len(counted), "oks": sum(likeness) / len(counted),
            "distance": sum(distances) / len(distances) if distances else math.nan, "torso": torso, "joints": len(counted),
            "missing": tuple(missing)}


@pytest.mark.parametrize("seed", range(8))
def test_a_score_is_what_the_definitions_give(seed):
    wanted = changed(seed, 3, missing=seed % 2)
    found = changed(100 + seed, 2 + 4 * seed, missing=seed % 4, canvas=(640, 300) if seed % 3 else CANVAS)
    expected, score = written_out(wanted, found), dataclasses.asdict(scoring.score(wanted, found))
    assert score.pop("missing") == expected.pop("missing")
    assert score == pytest.approx(expected, rel=1e-12, nan_ok=True)


def test_the_same_pose_scores_one_and_nobody_nought():
    pose = standing(CANVAS)
    same, nobody = scoring.score(pose, pose), scoring.score(pose, None)
    assert (same.oks, same.pck_near, same.pck_far, same.distance) == pytest.approx((1, 1, 1, 0), abs=1e-9)
    assert (nobody.oks, nobody.pck_near, nobody.pck_far) == (0, 0, 0) and math.isnan(nobody.distance)
    assert nobody.missing == JOINTS
    with pytest.raises(ValueError, match="no joint on its canvas"):
        scoring.score(pose.shifted(1e4, 0), pose)


def test_a_pose_that_is_farther_scores_less():
    wanted, noise = standing(CANVAS), np.random.default_rng(2).normal(0, 1, (18, 2))
    scores = [scoring.score(wanted, Keypoints(wanted.xy + step * noise, wanted.present, CANVAS)) for step in range(0, 30, 3)]
    assert all(a.oks > b.oks and a.pck_near >= b.pck_near for a, b in zip(scores, scores[1:], strict=False))
    assert scores[0].pck_near == 1 and scores[-1].pck_near < 0.5


@pytest.mark.parametrize("joints", [(0, 1, 2, 5), (1, 8), (2, 5), (0, 14, 15), (4,)])
def test_a_pose_without_a_torso_can_be_scored(joints):
    pose = standing(CANVAS)
    part = Keypoints(pose.xy, np.isin(np.arange(18), joints), CANVAS)
    near = Keypoints(pose.xy + 0.3, part.present, CANVAS)
    assert scoring.score(part, part).oks == pytest.approx(1) and scoring.score(part, near).pck_near == 1
    assert 0 < scoring.score(part, near).oks < 1


def test_the_best_is_the_nearest_and_of_several_people_the_nearest_counts():
    wanted = standing(CANVAS)
    others = [changed(1, 9), changed(2, 1), changed(3, 5)]
    assert scoring.closest(wanted, others) is others[1] and scoring.closest(wanted, []) is None
    scores = [scoring.score(wanted, one) for one in (*others, None)]
    assert scoring.best_pose(scores) == 1 and scoring.best_pose([scores[3], scores[3], scores[0]]) == 2
    assert scoring.best_pose([scores[1]] * 3) == 0, "the first among equals"


def test_likeness_of_faces_is_their_cosine_and_nought_without_a_face():
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=(1, 16)), rng.normal(size=(4, 16))
    b[2] = 0
    expected = [0 if not row.any() else sum(x * y for x, y in zip(a[0], row, strict=True))
                / math.sqrt(sum(x * x for x in a[0])) / math.sqrt(sum(x * x for x in row)) for row in b]
    np.testing.assert_allclose(scoring.similarity(a, b), expected, rtol=1e-12)


def test_the_overlay_shows_how_far_each_joint_is():
    wanted = standing(CANVAS)
    moved = wanted.xy.copy()
    moved[4] += (0, 8)      # within 0.1 of the torso, which is 108 pixels
    moved[7] += (0, 16)     # within 0.2
    moved[10] += (-50, 0)
    found = Keypoints(moved, np.arange(18) != 13, CANVAS)
    picture = scoring.overlay(np.full((*CANVAS, 3), 200, np.uint8), wanted, found)
    at = {joint: picture[tuple(np.round(wanted.xy[joint]).astype(int)[::-1])].tolist() for joint in (4, 7, 10)}
    assert at == {4: [80, 230, 120], 7: [255, 210, 60], 10: [255, 64, 64]}
    x, y = wanted.xy[13]
    around = picture[round(y) - 8:round(y) + 8, round(x) - 8:round(x) + 8].reshape(-1, 3)
    assert ((around[:, 0] > 200) & (around[:, 1:] < 110).all(1)).any(), "a ring where a joint was not found"
    assert picture[0, 0].tolist() == [90, 90, 90], "the picture is dimmed"
