"""The poses that the pack brings: enough of every kind, none with limbs through the body; and own poses as files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pgpis_models.body.figure import _TORSO_DEEP, TORSO_WIDE
from pgpis_models.body.frames import Figure, figure_of, to_frames
from pgpis_models.body.library import library, own_files, save_poses
from pgpis_models.body.skeleton import Build, Skeleton, build_skeleton
from pgpis_models.body.state import from_dict
from pgpis_models.poses.files import load_poses
from tools.pose_library.moving import MOVING
from tools.pose_library.resting import RESTING
from tools.pose_library.standing import STANDING

FOLDER = Path(__file__).resolve().parents[3] / "web" / "pose_library"
POSES = library(FOLDER / "poses.json")
KINDS = {"standing", "gestures", "views", "fashion", "walking", "running", "dancing", "sport", "sitting", "reaching",
         "lying"}
NEIGHBOURS = {frozenset(pair) for pair in (("fore", "hand"), ("fore", "upper"), ("hand", "upper"), ("thigh", "shank"),
                                           ("shank", "foot"))}
DEEPEST = 0.026   # body heights that cloth-thick parts may press into each other, as a hand on a thigh does


def capsules(skeleton: Skeleton) -> dict[str, tuple[np.ndarray, np.ndarray, float]]:
    """Name -> ends and radius of what limbs are made of, without their beginnings, which lie in their neighbours."""
    found = {}
    for side, (upper, lower), (thigh, shank), foot in zip("RL", skeleton.arms, skeleton.legs, skeleton.feet, strict=True):
        found |= {f"{side}upper": (upper.origin + 0.45 * (upper.end - upper.origin), upper.end, 0.026),
                  f"{side}fore": (lower.origin + 0.25 * (lower.end - lower.origin), lower.end, 0.020),
                  f"{side}hand": (lower.end, lower.end + lower.frame[:, 2] * 0.07, 0.012),
                  f"{side}thigh": (thigh.origin + 0.3 * (thigh.end - thigh.origin), thigh.end, 0.042),
                  f"{side}shank": (shank.origin + 0.15 * (shank.end - shank.origin), shank.end, 0.028)}
        sole = shank.end - foot[:, 1] * 0.022
        found[f"{side}foot"] = (sole, sole + foot[:, 2] * 0.08, 0.020)
    return found


def deepest(skeleton: Skeleton) -> tuple[float, str]:
    """How deep a limb lies in another part of the body, in body heights, and which."""
    along, (centres, frames) = np.linspace(0, 1, 21)[:, None], skeleton.spine
    points = {name: (start + along * (end - start), radius) for name, (start, end, radius) in capsules(skeleton).items()}
    skull, found = skeleton.neck + skeleton.head[:, 1] * 0.13, [(0.0, "none")]
    for number, (name, (own, radius)) in enumerate(points.items()):
        for other, (others, wide) in list(points.items())[number + 1:]:
            if name[0] != other[0] or frozenset((name[1:], other[1:])) not in NEIGHBOURS:
                apart = np.linalg.norm(own[:, None] - others[None], axis=2).min()
                found.append((float(radius + wide - apart), f"{name} in {other}"))
        if name[1:] == "thigh":
            continue
        found.append((float(0.072 + radius - np.linalg.norm(own - skull, axis=1).min()), f"{name} in the head"))
        for station in range(2, 18) if name[1:] != "upper" else ():
            local = (own - centres[station]) @ frames[station]
            near = np.abs(local[:, 1]) < 0.02
            half = np.array([TORSO_WIDE[station], _TORSO_DEEP[station]])
            inside = (1 - np.linalg.norm(local[near][:, [0, 2]] / half, axis=1)) * half.min() + radius
            found += [(float(inside.max()) if near.any() else 0.0, f"{name} in the torso")]
    return max(found)


def test_there_are_sixty_poses_and_more_of_every_kind():
    assert len(POSES) >= 60 and {pose.group for pose in POSES.values()} == KINDS
    for kind in ("walking", "running"):
        assert all(f"{kind} {n} of 8" in POSES for n in range(1, 9))
    assert "standing, from behind" in {name for name, pose in POSES.items() if pose.answers("back VIEW")}
    assert POSES["leap"].answers("ball jump") and not POSES["leap"].answers("sit")


@pytest.mark.parametrize("name", POSES)
def test_no_limb_lies_in_the_body(name):
    depth, where = deepest(build_skeleton(Build(), POSES[name].state.pose()))
    assert depth < DEEPEST, where


def test_an_arm_through_the_body_is_noticed():
    through = {"arms": [{"upper": [0.2, -1, 0], "lower": [-1, 0, 0]}, {}]}
    assert deepest(build_skeleton(Build(), from_dict(through).pose()))[0] > 0.05


def test_the_data_is_made_of_the_poses_that_are_written_down():
    entries = [*STANDING, *MOVING, *RESTING]
    assert [entry.name for entry in entries] == list(POSES)
    for entry in entries:
        written, kept = entry.state().to_dict(), POSES[entry.name].state.to_dict()
        assert written.pop("camera")[:2] == kept.pop("camera")[:2], entry.name   # place and zoom are fitted
        for name in ("root", "torso", "head"):
            assert written[name] == kept[name], entry.name
        for one, other in zip(written["arms"] + written["legs"], kept["arms"] + kept["legs"], strict=True):
            np.testing.assert_allclose(one["upper"] + one["lower"], other["upper"] + other["lower"], atol=2e-4)
            assert one.get("foot") == other.get("foot"), entry.name


def test_thumbnails_are_small_and_there_for_every_pose():
    data = json.loads((FOLDER / "poses.json").read_text())
    with Image.open(FOLDER / "thumbnails.png") as sprite:
        pixels = np.asarray(sprite.convert("RGB")).astype(int)
    assert (FOLDER / "thumbnails.png").stat().st_size < 300_000
    (width, height), columns = data["cell"], data["columns"]
    for number in range(len(data["poses"])):
        y, x = number // columns * height, number % columns * width
        cell = pixels[y:y + height, x:x + width]
        assert cell.shape == (height, width, 3) and cell.std() > 8


def test_own_poses_are_kept_in_folders_and_never_outside(tmp_path):
    figure = Figure(POSES["leap"].state)
    frames = to_frames([figure], [figure.draw((128, 96))])
    first, second = (save_poses(frames, tmp_path, "dance/leap") for _ in range(2))
    assert save_poses(frames, tmp_path, "dance\\leap.json", replace=True) == first
    assert own_files(tmp_path) == ["dance/leap.json", "dance/leap_2.json"] and second.name == "leap_2.json"
    assert figure_of(load_poses(first)[0]).state == POSES["leap"].state
    for bad in ("", "..", "../leap", "/leap", "C:leap", "a/../../b", "x" * 200, "lea\0p"):
        with pytest.raises(ValueError, match="file name"):
            save_poses(frames, tmp_path, bad)
    with pytest.raises(ValueError, match="POSE_KEYPOINT"):
        save_poses([{"people": []}], tmp_path, "empty")
    assert own_files(tmp_path / "none") == []
