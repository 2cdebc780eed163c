"""FPDM without golden cases: bad input, hostile checkpoint files, and arithmetic against plain formulas."""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from pgpis_models.checkpoint import load_checkpoint, save_checkpoint
from pgpis_models.convert_fpdm import Inert, convert, published_names, read_lightning
from pgpis_models.fpdm import CONFIGS, FPDM, FUSION_CONFIGS, FPDMConfig, FusionModel, Source, fusion_loss, gather_rows
from pgpis_models.fpdm_parts import TowerSizes, VisionTower, published_tower_name
from pgpis_models.fpdm_pose import augmented, clip_pixels, draw_batch, draw_fpdm, on_canvas, parse_fpdm_txt, unit_tensor
from pgpis_models.pose import MIRROR, Keypoints, from_pose_keypoint
from pgpis_models.pose_wholebody import load_wholebody, wholebody_to_pose_keypoint


def standing(canvas=(256, 176)) -> Keypoints:
    """A person with all joints, scaled to the canvas."""
    x = [.5, .5, .4, .35, .33, .6, .65, .67, .43, .42, .42, .57, .58, .58, .48, .52, .45, .55]
    y = [.12, .2, .2, .35, .5, .2, .35, .5, .5, .7, .92, .5, .7, .92, .1, .1, .11, .11]
    return Keypoints(np.stack([np.array(x) * canvas[1], np.array(y) * canvas[0]], 1), np.ones(18, bool), canvas)


@pytest.fixture(scope="module")
def tiny() -> FPDM:
    torch.manual_seed(0)
    model = FPDM(CONFIGS["tiny"])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()


def pixels(config: FPDMConfig, batch: int, seed: int = 1):
    """(source, clip_source, pose, clip_pose) of random values."""
    random = torch.Generator().manual_seed(seed)
    sizes = (config.source_size, config.fusion.image, config.image_size, config.fusion.image)
    return tuple(torch.rand((batch, 3, *size), generator=random) for size in sizes)


# --- poses --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("text", "says"), [
    ("1 2\n" * 17, "17 lines; expected 18"), ("1 2\n" * 19, "19 lines; expected 18"), ("", "0 lines"),
    ("1 2\n" * 17 + "1 2 3\n", "line 18 is '1 2 3'; expected 'x y'"), ("1 2\n" * 17 + "nose\n", "line 18 is 'nose'"),
    ("1 2\n" * 17 + "nan 2\n", "line 18 is 'nan 2'; expected finite")])
def test_a_pose_text_that_is_not_18_pairs_is_refused(text, says):
    with pytest.raises(ValueError, match=says):
        parse_fpdm_txt(text)


def test_a_joint_with_one_coordinate_of_minus_one_is_missing():
    pose = parse_fpdm_txt("-1 -1\n-1 30\n" + "128 64\n" * 16)
    assert pose.present.tolist() == [False, False] + [True] * 16
    assert pose.xy[2].tolist() == [88, 64] and pose.canvas == (256, 176)


def test_poses_on_other_canvases_are_scaled_to_the_one_drawn_on():
    small, large = standing(), standing((1024, 704))
    apart = np.abs(draw_fpdm(small).astype(int) - draw_fpdm(large)).max(2) > 0
    assert draw_fpdm(large).any() and apart.mean() < 0.01  # rounding of the scale only
    batch = draw_batch([small, large], (64, 48))
    assert batch.shape == (2, 64, 48, 3) and batch[0].any() and batch[1].any()
    far = Keypoints(standing().xy + 1e6, np.ones(18, bool), (256, 176))
    assert not draw_fpdm(far).any()


def test_red_and_blue_are_swapped_and_lone_limbs_have_60_percent():
    pose = np.zeros((18, 2))
    pose[0] = 20, 20
    nose = draw_fpdm(Keypoints(pose, np.arange(18) == 0, (64, 64)), (64, 64))
    assert nose[20, 20].tolist() == [0, 0, 255] and nose[20, 24].any() and not nose[20, 26].any()
    pose[1] = 50, 20
    limb = draw_fpdm(Keypoints(pose, np.arange(18) < 2, (64, 64)), (64, 64))
    assert limb[20, 35].tolist() == [153, 0, 0]  # the neck-nose limb takes the thirteenth colour, (0, 0, 255) swapped


def test_blending_inside_a_box_equals_blending_the_whole_picture():
    import cv2

    from pgpis_models.fpdm_pose import COLOURS, LIMBS, RADIUS
    pose = on_canvas(standing(), (120, 90)).shifted(-25, 20)  # some of it off the canvas
    whole = np.zeros((120, 90, 3), np.uint8)
    for (x, y), colour in zip(pose.xy.tolist(), COLOURS, strict=True):
        cv2.circle(whole, (int(x), int(y)), RADIUS, colour, -1)
    for (a, b), colour in zip(LIMBS, COLOURS[:17], strict=True):
        (ax, ay), (bx, by) = pose.xy[a], pose.xy[b]
        angle = int(np.degrees(np.arctan2(ay - by, ax - bx)))
        outline = cv2.ellipse2Poly((int((ax + bx) / 2), int((ay + by) / 2)),
                                   (int(np.hypot(ax - bx, ay - by) / 2), RADIUS), angle, 0, 360, 1)
        cover = whole.copy()
        cv2.fillConvexPoly(cover, outline, colour)
        whole = cv2.addWeighted(whole, 0.4, cover, 0.6, 0)
    assert whole.any() and np.array_equal(draw_fpdm(pose, (120, 90)), whole)


def test_training_noise_drops_joints_that_leave_to_the_left_and_keeps_the_others():
    pose, noise = on_canvas(standing()), np.zeros((18, 2))
    noise[4], noise[7], noise[10] = (-1000, 0), (1000, 0), (0, 1000)
    moved = augmented(pose, noise)
    assert not moved.present[4] and moved.present.sum() == 17
    assert moved.xy[7, 0] == 374 and moved.xy[10, 1] == 549
    flipped = augmented(pose, flip=True)
    assert np.allclose(flipped.xy[:, 0], 375 - pose.xy[list(MIRROR), 0])
    assert np.allclose(augmented(flipped, flip=True).xy, pose.xy)
    with pytest.raises(ValueError, match=r"\(17, 2\); expected \(18, 2\)"):
        augmented(pose, np.zeros((17, 2)))


def test_pictures_become_tensors_in_their_ranges():
    picture = draw_fpdm(standing())
    pose = unit_tensor([picture, picture], (64, 48))
    assert pose.shape == (2, 3, 64, 48) and 0 <= pose.min() and pose.max() <= 1
    assert clip_pixels([picture], (56, 56), crop=True).shape == (1, 3, 56, 56)
    with pytest.raises(ValueError, match="float64.*expected uint8"):
        unit_tensor([picture / 255.0], (64, 48))
    with pytest.raises(ValueError, match="no poses"):
        draw_batch([])


# --- whole-body points --------------------------------------------------------------------------------------

def people(frames: int) -> np.ndarray:
    points = np.random.default_rng(0).uniform(20, 200, (frames, 133, 2))
    points[0, 9] = 0  # the left wrist
    return points


def test_133_points_become_18_joints_with_hands_and_face(tmp_path):
    points = people(2)
    frames = wholebody_to_pose_keypoint(points, (260, 210))
    first, second = from_pose_keypoint(frames)
    assert first.canvas == (260, 210) and not first.present[7] and first.present.sum() == 17
    assert np.allclose(second.xy[0], points[1, 0]) and np.allclose(second.xy[2], points[1, 6])
    assert np.allclose(second.xy[1], (points[1, 5] + points[1, 6]) / 2) and np.allclose(second.xy[14], points[1, 2])
    person = frames[1]["people"][0]
    assert [len(person[f"{part}_keypoints_2d"]) for part in ("pose", "face", "hand_left", "hand_right")] == \
        [54, 210, 63, 63]
    assert np.allclose(np.reshape(person["hand_right_keypoints_2d"], (21, 3))[:, :2], points[1, 112:])
    assert np.allclose(np.reshape(person["face_keypoints_2d"], (70, 3))[:68, :2], points[1, 23:91])
    np.save(tmp_path / "video.npy", points)
    assert load_wholebody(tmp_path / "video.npy", (260, 210)) == frames
    (tmp_path / "one.txt").write_text("\n".join(f"{x} {y}" for x, y in points[0]))
    assert load_wholebody(tmp_path / "one.txt", (260, 210)) == frames[:1]
    scored = wholebody_to_pose_keypoint(points, (260, 210), np.full((2, 133), 0.4))
    assert scored[1]["people"][0]["pose_keypoints_2d"][2] == 0.4
    assert wholebody_to_pose_keypoint(np.zeros((133, 3)), (260, 210))[0]["people"] == []


def test_other_numbers_of_whole_body_points_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"shape \(17, 2\); expected \(133, 2"):
        wholebody_to_pose_keypoint(np.zeros((17, 2)), (260, 210))
    (tmp_path / "one.txt").write_text("1 2\n" * 132)
    with pytest.raises(ValueError, match="one.txt: 132 lines.*expected 133"):
        load_wholebody(tmp_path / "one.txt", (260, 210))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="objects.npy"):
        load_wholebody(tmp_path / "objects.npy", (260, 210))


# --- networks -----------------------------------------------------------------------------------------------

def test_the_towers_equal_those_of_transformers_at_their_own_size():
    transformers = pytest.importorskip("transformers")
    sizes = TowerSizes((42, 42), 14, 32, 2, 4, 64)
    common = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, image_size=42, patch_size=14)
    clip = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(
        **common, intermediate_size=64, projection_dim=24, hidden_act="quick_gelu")).eval()
    dino = transformers.Dinov2Model(transformers.Dinov2Config(**common, mlp_ratio=2)).eval()
    # transformers 5 calls DINOv2's projections q_proj; older ones as the published files do.
    newer = {"attention.attention.query": "attention.q_proj", "attention.attention.key": "attention.k_proj",
             "attention.attention.value": "attention.v_proj", "attention.output.dense": "attention.o_proj"}
    x = torch.randn(2, 3, 42, 42)
    for kind, model, prefix in (("clip", clip, "vision_model."), ("dinov2", dino, "")):
        tower, state = VisionTower(sizes, kind).eval(), model.state_dict()
        own = {}
        for name, value in tower.state_dict().items():
            key = prefix + published_tower_name(name, kind)
            if key not in state:
                for old, new in newer.items():
                    key = key.replace(old, new)
            own[name] = state[key].reshape(value.shape)
        tower.load_state_dict(own)
        with torch.no_grad():
            if kind == "clip":
                theirs, ours = clip(x).image_embeds, clip.visual_projection(tower.norm_out(tower.hidden(x)[:, 0]))
            else:
                theirs, ours = dino(x).last_hidden_state, tower(x)
        assert (theirs - ours).abs().max() < 1e-5, kind


def test_clip_pixels_of_another_size_are_refused(tiny):
    with pytest.raises(ValueError, match=r"\(70, 70\).*expected \(56, 56\)|positions"):
        tiny.fusion.embed(torch.rand(1, 3, 70, 70))
    with pytest.raises(ValueError, match=r"\(1, 3, 32, 48\); expected \(B, 3, 64, 48\)"):
        tiny.encode_pose(torch.rand(1, 3, 32, 48))


def test_one_source_with_many_poses_is_each_pose_alone(tiny):
    source, clip_source, pose, clip_pose = pixels(tiny.config, 3)
    with torch.no_grad():
        one = tiny.encode_source(source[:1], clip_source[:1])
        many = tiny.encode(one, pose, clip_pose)
        for row in range(3):
            alone = tiny.encode(one, pose[row:row + 1], clip_pose[row:row + 1])
            assert torch.allclose(many.fusion[row], alone.fusion[0], atol=1e-6)
            assert torch.allclose(many.pose_map[row], alone.pose_map[0], atol=1e-6)
        assert tiny.encode(tiny.encode_source(source, clip_source), pose[:1], clip_pose[:1]).fusion.shape[0] == 3
        with pytest.raises(ValueError, match="2 sources and 3 poses"):
            tiny.encode(Source(one.tokens.expand(2, -1, -1), one.embedding.expand(2, -1)), pose, clip_pose)


def test_equal_weights_telescope_to_two_terms_with_the_same_result_in_float64(tiny):
    source, clip_source, pose, clip_pose = pixels(tiny.config, 2)
    with torch.no_grad():
        encoded = tiny.encode(tiny.encode_source(source, clip_source), pose, clip_pose)

    def prediction(injections):
        """Stands for a UNet: any function that tells all inputs apart."""
        return (torch.sin(injections.context["mid"].double().sum((1, 2))) + injections.stem.double().pow(2).sum((1, 2, 3))
                + injections.time_embedding.double().sum(1).cos())

    for w_src, w_fus, terms in ((2.0, 2.0, 2), (1.0, 1.0, 1), (2.0, 3.5, 3)):
        chain = tiny.guidance(encoded, source=w_src, fusion=w_fus)
        null, seen, full = (prediction(term.injections) for term in chain.terms)
        expected = null + w_src * (seen - null) + w_fus * (full - seen)
        short = chain.needed()
        assert len(short.terms) == terms
        made = short.combine([prediction(term.injections) for term in short.terms])
        assert torch.allclose(made, expected.expand_as(made), atol=1e-10, rtol=1e-12)
    null = chain.terms[0].injections
    assert not null.stem.any() and not null.context["up"].any() and null.time_embedding.any()


def test_drops_are_per_batch_or_per_sample(tiny):
    batch = 4
    tokens = torch.randn(batch, 17, tiny.config.source.width)
    pose, fusion = pixels(tiny.config, batch)[2], torch.randn(batch, tiny.config.fusion.embed)
    drop_u = torch.ones(3, batch)
    drop_u[0, 1] = drop_u[1, 2] = drop_u[2, 3] = 0.0
    with torch.no_grad():
        kept = tiny.training_injections(tokens, pose, fusion, torch.ones(3, 1))
        told = tiny.training_injections(tokens, pose, fusion, drop_u)
        null = tiny.class_mlp(torch.zeros(1, tiny.config.fusion.embed))[0]
    for row in range(batch):
        assert torch.equal(told.stem[row], torch.zeros_like(kept.stem[0]) if row == 1 else kept.stem[row])
        assert told.context["up"][row].any() == (row != 2)
        assert torch.allclose(told.time_embedding[row], null if row == 3 else kept.time_embedding[row], atol=1e-6)
    with pytest.raises(ValueError, match=r"drop_u has shape \(3, 2\)"):
        tiny.training_injections(tokens, pose, fusion, torch.ones(3, 2))
    assert tiny.train().training and not tiny.class_mlp.training and tiny.fusion.combiner.training
    tiny.eval()


# --- the contrastive loss -----------------------------------------------------------------------------------

def plain_loss(target, fusion, source, temperature=0.07, weight=1e-4):
    rows, columns = np.concatenate([target, source]), np.concatenate([fusion, source])
    rows, columns = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (rows, columns))
    logits = rows @ columns.T / temperature
    entropy = np.log(np.exp(logits).sum(1)) - np.diag(logits)
    return entropy.mean() + weight * np.abs(source - fusion).sum() / (2 * source.size)


def test_the_loss_equals_a_plain_formula():
    random = np.random.default_rng(0)
    target, fusion, source = (random.standard_normal((7, 12)) for _ in range(3))
    result = fusion_loss(*(torch.from_numpy(x) for x in (target, fusion, source)))
    assert abs(result.loss.item() - plain_loss(target, fusion, source)) < 1e-12
    perfect = fusion_loss(torch.from_numpy(target), torch.from_numpy(target), torch.from_numpy(source))
    assert perfect.top1 == perfect.top5 == perfect.mean_rank == 1
    with pytest.raises(ValueError, match="one shape"):
        fusion_loss(torch.zeros(3, 4), torch.zeros(2, 4), torch.zeros(3, 4))


def test_gathered_losses_of_two_processes_average_to_that_of_the_joint_batch():
    target, fusion, source = (torch.randn(6, 8, dtype=torch.float64, requires_grad=True) for _ in range(3))
    whole = fusion_loss(target, fusion, source)
    expected = torch.autograd.grad(whole.loss, (target, fusion, source), retain_graph=True)
    parts = []
    for first in (0, 3):
        own = slice(first, first + 3)
        all_rows = iter([(fusion, first), (source, first)])
        parts.append(fusion_loss(target[own], fusion[own], source[own], gather=lambda _, rows=all_rows: next(rows)))
    assert torch.allclose((parts[0].loss + parts[1].loss) / 2, whole.loss)
    made = torch.autograd.grad((parts[0].loss + parts[1].loss) / 2, (target, fusion, source))
    assert all(torch.allclose(a, b) for a, b in zip(made, expected, strict=True))
    assert torch.allclose((parts[0].mean_rank + parts[1].mean_rank) / 2, whole.mean_rank)


def test_gathering_works_alone_and_in_a_group_of_one(tmp_path):
    rows = torch.randn(3, 4, requires_grad=True)
    assert gather_rows(rows)[0] is rows
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        every, first = gather_rows(rows)
        every.sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    assert first == 0 and torch.equal(every, rows) and torch.equal(rows.grad, torch.ones_like(rows))


# --- files --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["fpdm", "fpdm_fusion"])
def test_checkpoints_of_both_stages_come_back_as_they_were(tmp_path, tiny, name):
    module = tiny if name == "fpdm" else tiny.fusion
    weights = {key: torch.randn(shape) for key, shape in module.unet_weight_shapes().items()}
    save_checkpoint(tmp_path / "a.safetensors", module, weights, base="sd21", step=3, data="none", licence="test")
    loaded = load_checkpoint(tmp_path / "a.safetensors", expect_method=name)
    assert loaded.method.config == module.config and loaded.unet_weights.keys() == weights.keys()
    assert all(torch.equal(value, module.state_dict()[key]) for key, value in loaded.method.state_dict().items())


def test_the_demo_sizes_fit_together():
    with torch.device("meta"):
        model = FPDM(CONFIGS["demo"])
    assert model.config.latent_size == (16, 12) and model.config.fusion == FUSION_CONFIGS["demo"]
    with pytest.raises(ValueError, match="multiples of 8"):
        FPDMConfig(image_size=(100, 96))
    with pytest.raises(ValueError, match="3 attention heads do not divide"):
        TowerSizes(heads=3)


class Bomb:
    """Unpickled by anything that runs what it reads, it makes a file."""

    def __init__(self, path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def published(tmp_path, **more):
    """A stage 1 file of the tiny sizes as Lightning writes it, with `more` at its top level."""
    model, names = FusionModel(FUSION_CONFIGS["tiny"]), published_names(CONFIGS["tiny"])
    state = OrderedDict((names[f"fusion.{name}"][0].removeprefix("fusion_model."), value)
                        for name, value in model.state_dict().items())
    state |= {key.replace("img_encoder", "pose_encoder", 1): value for key, value in state.items() if "img_encoder" in key}
    path = tmp_path / "stage1.ckpt"
    torch.save({"state_dict": state, "epoch": 1} | more, path)
    return path, model


def test_code_in_a_file_is_not_run_and_its_weights_are_still_read(tmp_path):
    path, model = published(tmp_path, hyper_parameters=Bomb(tmp_path / "ran"), callbacks={"x": Bomb(tmp_path / "ran")})
    output = tmp_path / "out.safetensors"
    assert "fpdm_fusion" in convert([path], output, config=CONFIGS["tiny"])
    assert not (tmp_path / "ran").exists()
    loaded = load_checkpoint(output).method
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in loaded.state_dict().items())
    torch.save({"state_dict": Bomb(tmp_path / "ran")}, path)
    with pytest.raises(ValueError, match="holds no state_dict"):
        read_lightning(path)
    torch.save({"state_dict": {"a": Bomb(tmp_path / "ran"), "b": torch.ones(1)}}, path)
    with pytest.raises(ValueError, match="1 of 2 entries.*not tensors by name: a"):
        read_lightning(path)
    assert not (tmp_path / "ran").exists()
    with open(tmp_path / "bare.pkl", "wb") as file:
        pickle.dump({"state_dict": Bomb(tmp_path / "ran")}, file)
    with pytest.raises(ValueError, match="not a whole torch file"):
        read_lightning(tmp_path / "bare.pkl")
    assert not (tmp_path / "ran").exists()
    torch.load(path, weights_only=False)  # the bomb is real
    assert (tmp_path / "ran").exists()


def test_stand_ins_take_anything():
    thing = Inert(1, a=2)
    thing["x"] = 1
    thing.append(1)
    assert thing(1) is None and thing.update({}) is None


def test_files_that_do_not_fit_are_refused_by_name(tmp_path):
    path, _ = published(tmp_path)
    with pytest.raises(ValueError, match="does not fit fpdm_fusion.*missing"):
        convert([path], tmp_path / "o.safetensors")
    state = torch.load(path, weights_only=True)["state_dict"]
    torch.save({"state_dict": state | {"combiner.other": torch.ones(1)}}, path)
    with pytest.raises(ValueError, match="1 keys unexpected: combiner.other"):
        convert([path], tmp_path / "o.safetensors", config=CONFIGS["tiny"])
    changed = {key: value + 1 if key == "pose_encoder.visual_projection.weight" else value for key, value in state.items()}
    torch.save({"state_dict": changed}, path)
    with pytest.raises(ValueError, match="should equal others and do not .pose_encoder.visual_projection.weight"):
        convert([path], tmp_path / "o.safetensors", config=CONFIGS["tiny"])
    torch.save({"state_dict": {"x": torch.ones(1)}}, path)
    with pytest.raises(ValueError, match="of neither stage"):
        convert([path], tmp_path / "o.safetensors")
    with pytest.raises(ValueError, match="2 input files; expected one"):
        convert([path, path], tmp_path / "o.safetensors")
    with pytest.raises(FileNotFoundError):
        read_lightning(tmp_path / "absent.ckpt")
    assert not (tmp_path / "o.safetensors").exists()


def test_damaged_files_say_so(tmp_path):
    path, _ = published(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not a whole torch file"):
        read_lightning(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}q\x00X")
    with pytest.raises(ValueError, match="cannot be read"):
        read_lightning(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "x")
    with pytest.raises(ValueError, match="without one data.pkl"):
        read_lightning(path)


def test_tensors_may_not_reach_out_of_their_storage(tmp_path):
    """A file that claims more entries than its storage has must not show other memory."""
    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": {"combiner.x": torch.arange(4.0)}}, path)
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in content if name.endswith("data.pkl"))
    start = content[name].index(b"K\x04\x85")  # the size (4,)
    content[name] = content[name][:start] + b"K\x7f\x85" + content[name][start + 3:]
    with zipfile.ZipFile(path, "w") as archive:
        for key, value in content.items():
            archive.writestr(key, value)
    with pytest.raises(ValueError, match="reaches to entry 126 of a storage of 4"):
        read_lightning(path)


def test_half_precision_and_strided_tensors_are_read(tmp_path):
    tensors = {"a": torch.randn(4, 3).half(), "b": torch.randn(4, 3).T, "c": torch.tensor(3), "d": torch.empty(0, 2),
               "e": nn.Parameter(torch.randn(2)), "f": torch.randn(5).bfloat16(), "g": torch.tensor([True, False])}
    torch.save({"state_dict": tensors}, tmp_path / "a.ckpt")
    read = read_lightning(tmp_path / "a.ckpt")
    assert all(torch.equal(read[key], value) and read[key].dtype == value.dtype for key, value in tensors.items())
