"""DensePose pictures, the pose guider's input, the estimator's seam, and faces beside it."""

import types

import numpy as np
import pytest
import torch

from pgpis_models.surface.densepose import (
    GROUPS,
    IUV,
    PART_NAMES,
    estimate,
    load_model,
    part_numbers,
    pose_picture,
    pose_pictures,
)
from pgpis_models.surface.face import crop, expanded_box, find_face, load_app, load_embedding

PHOTO = np.random.default_rng(0).integers(0, 256, (60, 40, 3), dtype=np.uint8)


def picture(size=(12, 9)) -> np.ndarray:
    values = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    values[..., 0] %= 25
    return values


@pytest.mark.parametrize("order", ["part,u,v", "v,u,part"])
def test_pictures_survive_in_both_channel_orders(order):
    first = picture() if order == "part,u,v" else picture()[..., ::-1]
    iuv = IUV.from_picture(first, order)
    assert iuv.size == (12, 9) and iuv.part.dtype == np.uint8 and iuv.u.dtype == np.float32
    np.testing.assert_array_equal(iuv.to_picture(order), first)


def test_every_byte_survives_and_other_values_are_truncated():
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    every = np.stack([np.ones_like(values), values, values], -1)
    np.testing.assert_array_equal(IUV.from_picture(every).to_picture(), every)
    one = IUV(np.ones((1, 1), np.uint8), np.full((1, 1), 99.9 / 255, np.float32), np.ones((1, 1), np.float32))
    assert one.to_picture().tolist() == [[[1, 99, 255]]]


def test_parts_have_names_and_groups():
    assert len(PART_NAMES) == 25 and len(set(PART_NAMES)) == 25
    assert part_numbers("arms") == tuple(range(15, 23))
    assert part_numbers(["left foot", 2, "hands"]) == (2, 3, 4, 5)
    for group in ("arms", "legs", "hands", "feet", "torso", "head"):
        names = [PART_NAMES[part] for part in GROUPS[group]]
        assert all(group.rstrip("s") in name or group == "feet" or
                   {"arms": "arm", "legs": "leg"}.get(group, group) in name for name in names)
    assert sorted(sum((GROUPS[group] for group in ("torso", "hands", "feet", "legs", "arms", "head")), ())) == \
        list(range(1, 25))
    mask = IUV.from_picture(picture()).part_mask("head", 1)
    np.testing.assert_array_equal(mask, np.isin(picture()[..., 0], (1, 23, 24)))
    for wrong in (0, 25, "elbow", [1, None]):
        with pytest.raises(ValueError, match="is not known"):
            part_numbers(wrong)


def test_the_pose_guiders_picture_has_v_u_part():
    part = np.full((20, 10), 23, np.uint8)
    iuv = IUV(part, np.full(part.shape, 1.0, np.float32), np.zeros(part.shape, np.float32))
    tensor = pose_picture(iuv)
    assert tensor.shape == (3, 512, 512) and tensor.dtype == torch.float32
    torch.testing.assert_close(tensor[:, 0, 0], torch.tensor([0.0, 1.0, 23 / 255]))
    assert torch.equal(pose_pictures([iuv, iuv]), torch.stack([tensor, tensor]))
    with pytest.raises(ValueError, match="no DensePose"):
        pose_pictures([])


def test_bad_densepose_is_refused():
    good = IUV.from_picture(picture())
    high = picture()
    high[0, 0, 0] = 30
    with pytest.raises(ValueError, match="reaches 30 .* expected 0 to 24.*channel order"):
        IUV.from_picture(high)
    with pytest.raises(ValueError, match="came as float64"):
        IUV.from_picture(picture() / 255)
    with pytest.raises(ValueError, match=r"came as uint8 \(12, 9\)"):
        IUV.from_picture(picture()[..., 0])
    with pytest.raises(ValueError, match="channel order 'u,v,part' is not known"):
        IUV.from_picture(picture(), "u,v,part")
    with pytest.raises(ValueError, match="part came as int64"):
        IUV(good.part.astype(int), good.u, good.v)
    with pytest.raises(ValueError, match="have the sizes"):
        IUV(good.part, good.u[:5], good.v)
    with pytest.raises(ValueError, match="u reaches from .* to .*; expected 0 to 1"):
        IUV(good.part, good.u * 255, good.v)
    with pytest.raises(ValueError, match="parts reach 25"):
        IUV(np.full((2, 2), 25, np.uint8), np.zeros((2, 2), np.float32), np.zeros((2, 2), np.float32))


def model_of(*people, keys=None):
    """A stand-in for the TorchScript model: per person (box, part), the left half of each box is background."""
    def run(image):
        assert image.dtype == torch.uint8 and image.shape[0] == 3
        run.seen = image
        count = len(people)
        boxes = torch.tensor([box for box, _ in people], dtype=torch.float32).reshape(count, 4)
        coarse, fine = torch.zeros(count, 2, 8, 8), torch.zeros(count, 25, 8, 8)
        u, v = torch.full((count, 25, 8, 8), -1.0), torch.full((count, 25, 8, 8), 2.0)
        for i, (_, part) in enumerate(people):
            coarse[i, 0, :, :4], coarse[i, 1, :, 4:] = 1, 1
            fine[i, part], u[i, part], v[i, part] = 1, 0.25, 0.75
        found = (boxes, coarse, fine, u, v)
        return dict(zip(keys, found, strict=True)) if keys else found
    return run


def test_the_estimate_is_pasted_into_the_box():
    model = model_of(((4.6, 10.2, 24.9, 50.7), 7))
    iuv = estimate(model, PHOTO)
    expected = np.zeros((60, 40), bool)
    expected[10:50, 14:24] = True  # box 4, 10, width 20, height 40, all truncated; its right half
    np.testing.assert_array_equal(iuv.part, expected * 7)
    np.testing.assert_allclose(iuv.u, expected * 0.25, atol=1e-6)
    np.testing.assert_allclose(iuv.v, expected * 0.75, atol=1e-6)
    np.testing.assert_array_equal(model.seen.numpy(), PHOTO[..., ::-1].transpose(2, 0, 1))
    estimate(model, PHOTO, channels="rgb")
    np.testing.assert_array_equal(model.seen.numpy(), PHOTO.transpose(2, 0, 1))


def test_boxes_beyond_the_photo_are_cut():
    iuv = estimate(model_of(((-10.0, -5.0, 60.0, 70.0), 2)), PHOTO)
    assert iuv.size == (60, 40) and (iuv.part[:, 26:] == 2).all() and not iuv.part[:, :24].any()


@pytest.mark.parametrize("keys", [None, ("pred_boxes", "pred_densepose_coarse_segm", "pred_densepose_fine_segm",
                                         "pred_densepose_u", "pred_densepose_v")])
def test_two_people_and_who_is_taken(keys):
    model = model_of(((0, 0, 10, 10), 1), ((0, 0, 30, 50), 2), keys=keys)
    for person, part in (("largest", 2), ("best", 1), (0, 1), (1, 2)):
        assert estimate(model, PHOTO, person).part.max() == part
    for person in (2, -1, "tallest"):
        with pytest.raises(ValueError, match="but the photo shows 2"):
            estimate(model, PHOTO, person)


def test_an_empty_photo_a_strange_model_and_a_missing_file_are_said(tmp_path):
    with pytest.raises(ValueError, match="nobody found in a photo of 40x60 pixels"):
        estimate(model_of(), PHOTO)
    with pytest.raises(ValueError, match="shows no body part"):
        estimate(model_of(((0, 0, 10, 10), 0)), PHOTO)
    with pytest.raises(ValueError, match="the DensePose model gave"):
        estimate(lambda image: {"scores": image}, PHOTO)
    with pytest.raises(ValueError, match="the photo came as float32"):
        estimate(model_of(), PHOTO.astype(np.float32))
    with pytest.raises(ValueError, match="no DensePose model at|needs? the package torchvision"):
        load_model(tmp_path / "densepose_r50_fpn_dl.torchscript")


def app_of(*boxes):
    faces = [types.SimpleNamespace(bbox=np.array(box, np.float32), embedding=np.full(512, i + 1.0, np.float32))
             for i, box in enumerate(boxes)]
    return types.SimpleNamespace(get=lambda image: faces)


def test_the_largest_face_or_an_index_is_taken():
    app = app_of((0, 0, 5, 5), (0, 0, 20, 20))
    assert find_face(app, PHOTO).embedding[0] == 2 and find_face(app, PHOTO, 1).embedding[0] == 1
    with pytest.raises(ValueError, match="face 2 was asked for, but the photo shows 2"):
        find_face(app, PHOTO, 2)
    lacking = types.SimpleNamespace(get=lambda image: [types.SimpleNamespace(bbox=np.array([0, 0, 5, 5]), embedding=None)])
    with pytest.raises(ValueError, match="no recogniser, so they have no embedding; expected all .onnx files"):
        find_face(lacking, PHOTO)


def test_no_face_warns_and_gives_none():
    with pytest.warns(UserWarning, match="no face found in a photo of 40x60"):
        assert find_face(app_of(), PHOTO) is None


def test_embeddings_from_files_are_checked(tmp_path):
    values = np.random.default_rng(0).normal(size=(1, 512))
    np.save(tmp_path / "face.npy", values)
    np.testing.assert_allclose(load_embedding(tmp_path / "face.npy"), values[0], rtol=1e-6)
    bad = {"short": np.zeros(128), "nan": np.full(512, np.nan), "words": np.array(["a"] * 512),
           "object": np.array([None] * 512)}
    for name, array in bad.items():
        np.save(tmp_path / f"{name}.npy", array, allow_pickle=True)
        with pytest.raises(ValueError, match=f"{name}.npy"):
            load_embedding(tmp_path / f"{name}.npy")
    (tmp_path / "text.npy").write_text("hello")
    np.savez(tmp_path / "many.npz", a=values)
    for name in ("text.npy", "many.npz", "absent.npy"):
        with pytest.raises(ValueError, match=name):
            load_embedding(tmp_path / name)


def test_missing_face_software_is_named(tmp_path):
    with pytest.raises(ValueError, match="pip install insightface|no face model in"):
        load_app(tmp_path)


def test_crops_are_square_and_padded():
    assert expanded_box((10, 10, 50, 30)) == (0, -10, 60, 50)
    assert crop(PHOTO, (10, 10, 50, 30)).shape == (60, 60, 3) and not crop(PHOTO, (10, 10, 50, 30))[:10].any()
    assert crop(PHOTO, (10, 10, 20, 20), 224).shape == (224, 224, 3)
    assert not crop(PHOTO, (100, 100, 120, 120)).any()
    with pytest.raises(ValueError, match="the box is"):
        expanded_box((10, 10, 10, 30))
