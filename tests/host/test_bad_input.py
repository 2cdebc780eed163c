"""Wrong input gives the right result or a ValueError that says what came, what was expected and what to do.

What people do wrong most is in test_mistakes.py.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file


@pytest.fixture(scope="module")
def nodes(host):
    return SimpleNamespace(feathering=host.pack("pgpis_models.garments.feathering"), **{
        name: host.pack(f"nodes.{name}") for name in
        ("loaders", "pose", "appearance", "sampling", "image", "inputs")})


@pytest.fixture(scope="module")
def method(nodes, demo):
    return nodes.loaders.LoadCheckpoint.execute("cfld_tiny.safetensors").result[0]


@pytest.fixture(scope="module")
def model(nodes, demo):
    return nodes.loaders.LoadDemoBase.execute().result[0]


def person(joints=None, canvas=(128, 96), count=1):
    joints = [(20.0 + 3 * n, 10.0 + 6 * n, 1.0) for n in range(18)] if joints is None else joints
    flat = [value for joint in joints for value in joint]
    return [{"people": [{"pose_keypoints_2d": flat}], "canvas_height": canvas[0], "canvas_width": canvas[1]}] * count


def embed(nodes, method, source=None, pose=None, which=-1):
    source = torch.rand(1, 128, 96, 3, generator=torch.Generator().manual_seed(0)) if source is None else source
    return nodes.appearance.AppearanceEmbedding.execute(method, source, person() if pose is None else pose, which).result[0]


# --- checkpoints --------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def spoil(demo):
    """Writes a changed copy of the checkpoint; the change gets (tensors, metadata)."""
    def write(name, change):
        path = demo.folder / "cfld_tiny.safetensors"
        tensors = load_file(path)
        with safe_open(path, "pt") as file:
            metadata = dict(file.metadata())
        change(tensors, metadata)
        save_file(tensors, demo.folder / name, metadata)
        return name
    return write


def refused(nodes, name, *words):
    with pytest.raises(ValueError) as error:
        nodes.loaders.LoadCheckpoint.execute(name)
    for word in (name, *words):
        assert word in str(error.value), str(error.value)


def test_a_checkpoint_of_an_unknown_method_is_refused(nodes, spoil):
    name = spoil("other.safetensors", lambda t, m: m.update({"pgpis.method": json.dumps("mystery")}))
    with pytest.raises(ValueError, match="unknown method 'mystery'.*knows.*cfld.*update"):
        nodes.loaders.LoadCheckpoint.execute(name)


def test_missing_and_extra_keys_are_refused(nodes, spoil):
    def change(tensors, metadata):
        del tensors["method.learnable_vector"]
        tensors["method.surplus.weight"] = torch.zeros(2)
    refused(nodes, spoil("keys.safetensors", change), "1 keys missing: method.learnable_vector",
            "1 keys unexpected: method.surplus.weight")


def test_a_checkpoint_for_another_base_width_is_refused_by_apply(nodes, host, demo, method, tiny):
    cfld, checkpoint = host.pack("pgpis_models.cfld.model"), host.pack("pgpis_models.checkpoint")
    changes = {"width": {"unet_widths": (64, 64, 64)}, "context": {"prompt_width": 96, "decoder_heads": 3}}
    for name, change in changes.items():
        module = cfld.CFLD(dataclasses.replace(demo.config, **change)).requires_grad_(False)
        weights = {key: torch.zeros(shape) for key, shape in module.unet_weight_shapes().items()}
        checkpoint.save_checkpoint(demo.folder / f"{name}.safetensors", module, weights, base="sd15", step=0, data="-",
                                   licence="-")
        other = nodes.loaders.LoadCheckpoint.execute(f"{name}.safetensors").result[0]
        cond = embed(nodes, other)
        with pytest.raises(ValueError) as error:
            nodes.sampling.Apply.execute(nodes.loaders.LoadDemoBase.execute().result[0], cond)
        for word in (f"{name}.safetensors (cfld on base sd15)", "widths (32, 64, 128, 128)", "cross-attention width 64",
                     "Load"):
            assert word in str(error.value), str(error.value)
        (demo.folder / f"{name}.safetensors").unlink()   # a preset of other tests would find it


# --- poses --------------------------------------------------------------------------------------------------

def test_a_frame_without_people_says_which(nodes, method):
    frames = person() + [{"people": [], "canvas_height": 128, "canvas_width": 96}]
    with pytest.raises(ValueError, match="No person in frame 2 of 2.*expected one.*leave this frame out"):
        embed(nodes, method, pose=frames)
    with pytest.raises(ValueError, match="Person 3 asked for.*has 1.*Choose a smaller"):
        embed(nodes, method, pose=person(), which=3)


def test_parts_that_are_none_count_as_missing(nodes, method):
    frames = person()
    frames[0]["people"][0] |= {"face_keypoints_2d": None, "hand_left_keypoints_2d": None}
    joints = [(20.0 + 3 * n, 10.0 + 6 * n, 1.0) for n in range(18)]
    joints[4] = (None, None, None)
    some = person(joints)
    gone = [*joints]
    gone[4] = (0.0, 0.0, 0.0)
    assert same(embed(nodes, method, pose=some), embed(nodes, method, pose=person(gone)))
    assert same(embed(nodes, method, pose=frames), embed(nodes, method))


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first.encoded.pose_maps, second.encoded.pose_maps, strict=True))


def test_pixels_and_unit_coordinates_are_one_pose(nodes, method):
    pixels = [(8.0 + 4 * n, 16.0 + 4 * n, 1.0) for n in range(18)]
    unit = [(x / 96, y / 128, c) for x, y, c in pixels]
    assert same(embed(nodes, method, pose=person(pixels)), embed(nodes, method, pose=person(unit)))


def test_joints_off_the_canvas_are_clipped_not_refused(nodes, method):
    joints = [(20.0 + 3 * n, 10.0 + 6 * n, 1.0) for n in range(18)]
    joints[10] = (-50.0, 400.0, 1.0)
    cond = embed(nodes, method, pose=person(joints))
    assert all(torch.isfinite(value).all() for value in cond.encoded.pose_maps)


def test_a_person_off_the_canvas_is_refused_by_number(nodes, method):
    away = person([(1000.0 + 3 * n, 10.0 + 6 * n, 1.0) for n in range(18)])
    with pytest.raises(ValueError, match="no joint lies on the canvas of 96x128.*frame 2 of 2.*x 1000 to 1051"):
        embed(nodes, method, pose=person() + away)


def test_faint_joints_count_from_the_confidence_asked_for(nodes, method):
    faint = [(20.0 + 3 * n, 10.0 + 6 * n, 0.1 if n < 4 else 0.25 if n < 9 else 0.9) for n in range(18)]
    text = json.dumps(person(faint)[0])
    for least, missing in ((0.3, 9), (0.2, 4), (0.0, 0), (0.95, 18)):
        def load():
            return nodes.pose.loading.LoadPose.execute("(the text below)", text, 0, 0, least).result[0]   # noqa: B023
        if missing == 18:
            with pytest.raises(ValueError, match="confidence 0.95 or more.*lower min_confidence"):
                load()
            continue
        pose, = nodes.pose.loading.from_pose_keypoint(load())     # as every node reads it
        assert pose.present.tolist() == [False] * missing + [True] * (18 - missing), least
        triples = json.dumps(person()[0] | {"people": [{"pose_keypoints_2d": faint}]})
        again = nodes.pose.loading.LoadPose.execute("(the text below)", triples, 0, 0, least).result[0]
        assert (nodes.pose.loading.from_pose_keypoint(again)[0].present == pose.present).all()


@pytest.mark.parametrize("pose, words", [
    (torch.zeros(1, 8, 8, 3), "Tensor.*expected POSE_KEYPOINT.*not its picture"),
    ([], "without frames.*expected one frame"), ([{"people": []}], "canvas_width = None.*expected pixels"),
    ([{"people": [{"pose_keypoints_2d": [1.0] * 51}], "canvas_width": 9, "canvas_height": 9}], "51 numbers.*expected 54")])
def test_other_things_in_place_of_a_pose_are_refused(pose, words, nodes, method):
    with pytest.raises(ValueError, match=words):
        embed(nodes, method, pose=pose)


def test_text_that_is_no_pose_is_refused(nodes):
    for text, words in (("", "empty.*expected.*Paste"), ("hello", "begins with 'hello'; expected .*rows 'name"),
                        ('{"people": [', "not JSON"), ("a: [1, 2]: [3, 4]", "expected 18")):
        with pytest.raises(ValueError, match=words):
            nodes.pose.loading.LoadPose.execute("(the text below)", text, 176, 256)


def test_extract_pose_without_its_package_says_what_to_do(nodes, monkeypatch):
    for name in ("controlnet_aux", "controlnet_aux.open_pose"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match="controlnet-aux.*pip install controlnet-aux.*Load Pose"):
        nodes.pose.detecting.ExtractPose.execute(torch.rand(1, 64, 48, 3))


def test_extract_pose_gives_what_the_detector_finds_in_pixels_of_the_picture(nodes, monkeypatch, tmp_path):
    """Through a stand-in of controlnet_aux's modules, which finds one joint at the brightest pixel, and nobody in black."""
    import folder_paths
    seen, modules = [], {name: ModuleType(name) for name in
                         ("controlnet_aux", "controlnet_aux.open_pose", "controlnet_aux.open_pose.body")}

    class Detector:
        def __init__(self, body):
            assert next(body.model.parameters()).device.type == "cpu"

        def detect_poses(self, image):
            seen.append(image.shape)
            y, x = divmod(int(image[..., 0].argmax()), image.shape[1])
            joint = SimpleNamespace(x=x / image.shape[1], y=y / image.shape[0])
            joints = [None, joint, *[None] * 16]
            return [SimpleNamespace(body=SimpleNamespace(keypoints=joints))] if image.any() else []
    modules["controlnet_aux.open_pose"].OpenposeDetector = Detector
    modules["controlnet_aux.open_pose.body"].Body = lambda path: SimpleNamespace(model=torch.nn.Linear(2, 2))
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(folder_paths, "get_full_path", lambda *_: str(tmp_path / "body_pose_model.pth"))
    pictures = torch.zeros(2, 1024, 2048, 3)
    pictures[0, 256:264, 1536:1544] = 1
    frames, drawn = nodes.pose.detecting.ExtractPose.execute(pictures).result
    assert seen == [(512, 1024, 3)] * 2 and drawn.shape == pictures.shape and not drawn[1].any()
    pose, = nodes.pose.loading.from_pose_keypoint(frames[:1])
    assert pose.canvas == (1024, 2048) and pose.present.tolist() == [False, True] + [False] * 16
    assert abs(pose.xy[1] - [1536, 256]).max() <= 2 and frames[1]["people"] == []
    assert [len(frames[0]["people"][0][name]) for name in ("face_keypoints_2d", "hand_left_keypoints_2d")] == [210, 63]


def test_extract_pose_takes_rtmlib_and_names_its_files(nodes, monkeypatch, tmp_path):
    import folder_paths
    found = []

    class Wholebody:
        def __init__(self, **given):
            found.append(given)

        def det_model(self, image):
            return np.array([[0, 0, 8, 9]])

        def pose_model(self, image, bboxes):
            return np.full((1, 133, 2), 7.0), np.full((1, 133), 0.8)
    monkeypatch.setitem(sys.modules, "rtmlib", SimpleNamespace(Wholebody=Wholebody))
    nodes.pose.detecting._loaded_rtm.cache_clear()
    with pytest.raises(ValueError, match="rtmlib needs yolox_m_.*and rtmw-dw.*pgpis.*; nothing is downloaded"):
        nodes.pose.detecting.ExtractPose.execute(torch.rand(1, 64, 48, 3), "rtmlib")
    monkeypatch.setattr(folder_paths, "get_full_path", lambda folder, name: str(tmp_path / name))
    for name in nodes.pose.detecting.file_names():
        (tmp_path / name).touch()
    frames, drawn = nodes.pose.detecting.ExtractPose.execute(torch.rand(2, 64, 48, 3), "rtmlib").result
    assert len(frames) == 2 and drawn.shape == (2, 64, 48, 3) and len(found) == 1, "the networks are loaded once"
    assert found[0]["device"] == "cpu" and frames[0]["people"][0]["hand_left_keypoints_2d"][:3] == [7.0, 7.0, 0.8]


# --- counts -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("sources, poses, batch", [(1, 3, 3), (3, 1, 3), (2, 2, 2), (1, 1, 1)])
def test_counts_that_match_make_a_batch(sources, poses, batch, nodes, method, model):
    cond = embed(nodes, method, torch.rand(sources, 128, 96, 3), person(count=poses))
    assert cond.batch == batch
    assert nodes.sampling.Apply.execute(model, cond).result[3]["samples"].shape == (batch, 4, 16, 12)


def test_counts_that_do_not_match_are_both_named(nodes, method):
    with pytest.raises(ValueError, match="3 sources and 2 poses; expected equal numbers, or one of either.*Repeat"):
        embed(nodes, method, torch.rand(3, 128, 96, 3), person(count=2))
    with pytest.raises(ValueError, match="blend.*2 and 3 sources"):
        nodes.appearance.BlendAppearance.execute(embed(nodes, method, torch.rand(2, 128, 96, 3)),
                                                 embed(nodes, method, torch.rand(3, 128, 96, 3)), 0.5)
    with pytest.raises(ValueError, match="image_2 has 2 entries for 3 pictures; expected 1 or 3"):
        nodes.image.CompareGrid.execute(torch.rand(3, 16, 16, 3), "", image_2=torch.rand(2, 16, 16, 3))


@pytest.mark.hosts
@pytest.mark.parametrize("layout", [(16,), (3,), (4, 1), (4, 3)], ids=str)
def test_latents_of_another_layout_are_refused_at_the_node_and_at_the_sampler(layout, nodes, method, model):
    import comfy.samplers
    cond = embed(nodes, method)
    latents = torch.ones(1, *layout, *cond.latent_size)
    words = rf"latents are \({', '.join(map(str, latents.shape))}\); expected \(batch, 4, height, width\).*Connect"
    with pytest.raises(ValueError, match=words):
        nodes.sampling.Apply.execute(model, cond, latent={"samples": latents})
    patched, positive, negative, empty = nodes.sampling.Apply.execute(model, cond).result
    guider = comfy.samplers.CFGGuider(patched)
    guider.set_conds(positive, negative)
    with pytest.raises(ValueError, match=words):
        guider.sample(latents, latents, comfy.samplers.sampler_object("euler"), torch.tensor([5.0, 0.0]), disable_pbar=True)


def test_empty_latents_of_another_model_family_pass_as_the_host_takes_them(nodes, method, model):
    import comfy.sample
    cond = embed(nodes, method)
    empty = {"samples": torch.zeros(1, 16, *cond.latent_size)}
    patched, *_, latent = nodes.sampling.Apply.execute(model, cond, latent=empty).result
    assert latent is empty and comfy.sample.fix_empty_latent_channels(patched, empty["samples"]).shape[1] == 4


# --- pictures -----------------------------------------------------------------------------------------------

def test_grey_alpha_and_other_sizes_become_what_they_show(nodes):
    rgb = nodes.inputs.rgb
    grey = torch.rand(2, 6, 5, 1)
    assert torch.equal(rgb(grey, "x"), grey.movedim(-1, 1).expand(-1, 3, -1, -1))
    colour = torch.rand(1, 6, 5, 4)
    colour[..., 3] = 1
    assert torch.equal(rgb(colour, "x"), colour[..., :3].movedim(-1, 1))
    colour[..., 3] = 0
    assert (rgb(colour, "x") == 1).all(), "transparent is white"
    edges = torch.zeros(1, 3, 16, 16)
    edges[..., 4:9, 5:12] = 1
    enlarged = torch.nn.functional.interpolate(edges, size=(70, 50), mode="bicubic")   # as the host's Upscale Image does
    assert enlarged.min() < -0.1 and enlarged.max() > 1.1
    assert torch.equal(rgb(enlarged.movedim(1, -1), "x"), enlarged.clamp(0, 1)), "overshoot of a resize is cut"
    assert nodes.inputs.resized(torch.rand(1, 3, 20, 10), (8, 8)).shape == (1, 3, 8, 8)


@pytest.mark.parametrize("image, words", [
    (torch.full((1, 8, 8, 3), 200.0), "200.*expected 0..1.*Divide by 255"),
    (torch.full((1, 8, 8, 3), 40000.0), "4e.04.*expected 0..1.*65535"),
    (torch.full((1, 8, 8, 3), -1.0), "from -1.*expected 0..1.*Bring the range"),
    (torch.full((1, 8, 8, 3), float("nan")), "not finite.*expected 0..1.*Check"),
    (torch.zeros(1, 8, 8, 3, dtype=torch.uint8), "uint8.*expected floating point.*Divide"),
    (torch.zeros(1, 8, 8, 2), r"\(1, 8, 8, 2\).*expected an IMAGE.*Connect"),
    (torch.zeros(8, 8, 3), r"\(8, 8, 3\).*expected an IMAGE.*Connect")])
def test_other_ranges_and_shapes_are_refused(image, words, nodes, method):
    with pytest.raises(ValueError, match=words):
        embed(nodes, method, image)


def test_blending_two_checkpoints_is_refused(nodes, method, demo):
    again = nodes.loaders.LoadCheckpoint.execute("cfld_tiny.safetensors").result[0]
    with pytest.raises(ValueError, match="expected both of one checkpoint.*connect"):
        nodes.appearance.BlendAppearance.execute(embed(nodes, method), embed(nodes, again), 0.5)


@pytest.mark.parametrize("given", [(), ("guider", "model"), ("model", "positive")])
def test_masked_sampler_needs_a_guider_or_a_whole_model(given, nodes):
    arguments = {name: object() if name in given else None for name in ("guider", "model", "positive", "negative")}
    with pytest.raises(ValueError, match="expected either a guider alone, or model, positive and negative. Connect"):
        nodes.sampling._guider(**arguments, cfg=2.0)


def test_a_mask_of_another_shape_is_refused(nodes):
    with pytest.raises(ValueError, match=r"\(1, 8, 8, 3\); expected \(batch, height, width\). Connect"):
        nodes.feathering.feathered(torch.zeros(1, 8, 8, 3), (8, 8), 2)
