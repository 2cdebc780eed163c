"""FPDM's pose pictures, training augmentation and image tensors against the authors' code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pgpis_models.fpdm.config import FusionConfig
from pgpis_models.fpdm.drawing import augmented, draw_fpdm, on_canvas
from pgpis_models.fpdm.pictures import draw_poses
from pgpis_models.fpdm.pixels import clip_pixels, source_pixels, target_pixels, unit_tensor
from pgpis_models.poses.drawing import LIMBS
from pgpis_models.poses.padded_rows import FRAME, from_frame, parse_fpdm_txt


@pytest.fixture(scope="module")
def case(load_case):
    return load_case("fpdm", "pose")


def rows(keypoints) -> torch.Tensor:
    """As the authors keep them: -1 where missing."""
    return torch.from_numpy(np.where(keypoints.present[:, None], keypoints.xy, -1.0)).float()


def size_of(text: str) -> tuple[int, int]:
    """'375x550' (W x H) -> (H, W)."""
    width, height = text.split("x")
    return int(height), int(width)


def picture(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_every_pose_is_scaled_drawn_and_augmented_as_by_the_authors(case, compare):
    golden, info = case
    assert [tuple(joint - 1 for joint in limb) for limb in info["limbs"]] == list(LIMBS)
    assert FRAME == (info["param"]["anno_height"], info["param"]["anno_width"])
    ours = {}
    for key in (key for key in golden if key.startswith("out.")):
        kind, number = key.removeprefix("out.").split(".")
        keypoints = from_frame(golden[f"in.keypoints.{number}"].numpy())
        name, _, detail = kind.rpartition("_")
        if name == "scaled":
            ours[key] = rows(on_canvas(keypoints, size_of(detail)))
        elif name == "canvas":
            ours[key] = torch.from_numpy(draw_fpdm(keypoints, size_of(detail)))
        else:
            noise = golden[f"in.aug_noise.{number}"].numpy()
            ours[key] = rows(augmented(on_canvas(keypoints), noise, flip=detail == "flip1"))
    # The authors write -1 into one coordinate of a joint that left the canvas on one side; it is missing all the same.
    golden = {key: torch.where((value == -1).any(1, keepdim=True), -1.0, value) if key.startswith(("out.scaled", "out.aug"))
              else value for key, value in golden.items()}
    compare(ours, golden, {"out.scaled_*": 1e-4, "out.aug_*": 1e-4, "out.canvas_*": 0})


def test_every_stored_picture_is_drawn_exactly(case, golden_dir):
    golden, info = case
    poses = {name: from_frame(golden[f"in.keypoints.{n:02d}"].numpy()) for n, name in enumerate(info["names"])}
    files = sorted((golden_dir / "fpdm" / "pose_png").glob("*.png"))
    assert len(files) > 3 * len(poses)
    for file in files:
        name, _, size = file.stem.rpartition("_")
        if name.startswith("aug"):
            number, flip = name.removeprefix("aug").split("_flip")
            noise = golden[f"in.aug_noise.{int(number):02d}"].numpy()
            keypoints = augmented(on_canvas(poses[info["names"][int(number)]], size_of(size)), noise, flip == "1")
        else:
            keypoints = poses[name]
        assert np.array_equal(draw_fpdm(keypoints, size_of(size)), picture(file)), file.name
    batch = draw_poses(list(poses.values())[:3], (256, 176), FusionConfig())
    assert np.array_equal(batch[2], draw_fpdm(poses[info["names"][2]], (256, 176)))


def test_photos_and_poses_become_the_authors_tensors(load_case, golden_dir, compare):
    golden, info = load_case("fpdm", "preprocess")
    samples = golden_dir.parent / "samples" / "deepfashion"
    if not samples.is_dir():
        pytest.skip(f"the DeepFashion sample files are not in {samples}")
    source, target = (samples / info["pair"][f"{which}_image"] for which in ("source", "target"))
    stored = Path(str(target).replace("/img/", "/pose_img/"))
    text = Path(str(target).replace("/img/", "/pose/")).with_suffix(".txt")

    def hw(name):
        return tuple(info[name][::-1])
    photo, read = picture(source), hw("source_read_size")
    ours = {"out.test.src_processed_s_img": source_pixels([photo], hw("src_encoder_size"), read)[0],
            "out.test.fusion_processed_s_img": clip_pixels([photo], hw("fusion_size"), read_size=read)[0],
            "out.test.trans_t_img": target_pixels([picture(target)], hw("model_img_size"), hw("target_read_size"))[0],
            "out.stage1.source_img": clip_pixels([photo], hw("fusion_size"), crop=True)[0]}
    for name, pose in (("test", picture(stored)), ("test_from_txt", draw_fpdm(parse_fpdm_txt(text.read_text())))):
        ours[f"out.{name}.trans_t_pose"] = unit_tensor([pose], hw("model_img_size"))[0]
        ours[f"out.{name}.fusion_processed_t_pose"] = clip_pixels([pose], hw("fusion_size"))[0]
    compare(ours, golden, {"out.*": 1e-5})
