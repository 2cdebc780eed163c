"""FPDM's nodes on a tiny random checkpoint of a v-prediction base: the embedding, guidance, and sequences."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

FRAMES = 5


@pytest.fixture(scope="module")
def fpdm(tiny_method, tiny):
    return tiny_method("fpdm", "FPDM", "fpdm_tiny", 31, context=tiny.context)


@pytest.fixture(scope="module")
def qen(tiny_method, tiny):
    return tiny_method("qen", "QEN", "qen_sequence", 33, unet_heads=tiny.heads, prompt_width=tiny.context)


@pytest.fixture(scope="module")
def nodes(host):
    from types import SimpleNamespace
    return SimpleNamespace(**{name: host.pack(f"nodes.{name}") for name in
                              ("loaders", "pose", "appearance", "fusion", "sampling", "sequence")})


@pytest.fixture(scope="module")
def model(nodes, demo):
    return nodes.loaders.LoadDemoBase.execute().result[0]


@pytest.fixture(scope="module")
def photo():
    return torch.randint(0, 256, (1, 150, 100, 3), generator=torch.Generator().manual_seed(2)).float() / 255


def walking(count: int = FRAMES, canvas=(128, 96)) -> list[dict]:
    """Frames of a person whose joints all move."""
    random, frames = np.random.default_rng(4), []
    start, pace = random.uniform(20, 80, (18, 2)), random.uniform(-3, 3, (18, 2))
    for n in range(count):
        xy = (start + n * pace) * (canvas[1] / 96, canvas[0] / 128)
        flat = np.concatenate([xy, np.ones((18, 1))], 1).ravel().tolist()
        frames.append({"people": [{"pose_keypoints_2d": flat}], "canvas_height": canvas[0], "canvas_width": canvas[1]})
    return frames


def embed(nodes, fpdm, photo, pose, **more):
    return nodes.fusion.FusionEmbedding.execute(fpdm, photo, pose, **{"person": -1, "empty_frames": "error"} | more).result


def sequence(nodes, model, fpdm, photo, pose, **more):
    settings = {"person": -1, "empty_frames": "hold", "seed": 5, "noise": nodes.sequence.OWN, "steps": 3, "cfg": 2.0,
                "sampler_name": "euler", "scheduler": "normal", "chunk": 2}
    return nodes.sequence.PoseSequenceSampler.execute(model, fpdm, photo, pose, **settings | more).result[0]["samples"]


# --- the embedding ------------------------------------------------------------------------------------------

def test_the_conditions_are_those_of_the_method_and_the_similarity_is_a_cosine(host, nodes, fpdm, photo):
    target = torch.rand(3, 90, 70, 3, generator=torch.Generator().manual_seed(3))
    cond, similarity, similarities, drawn = embed(nodes, fpdm, photo, walking(3), target=target)
    assert (cond.batch, cond.latent_size) == (3, (16, 12))
    method, pose = fpdm.checkpoint.method, host.pack("pgpis_models.fpdm.drawing")
    resized = host.pack("pgpis_models.parts.pixels").resized
    keypoints = host.pack("pgpis_models.poses.formats").from_pose_keypoint(walking(3))
    pictures = [pose.draw_fpdm(one, (256, 192)) for one in keypoints]
    assert torch.equal(drawn, torch.from_numpy(np.stack(pictures)).float() / 255)
    array = (photo[0] * 255).round().byte().numpy()
    small = np.array(Image.fromarray(array).resize((96, 150), Image.Resampling.BICUBIC)
                       .resize((96, 128), Image.Resampling.BICUBIC))
    scaled = torch.from_numpy(small).permute(2, 0, 1)[None].float() / 255
    def normal(x, mean, std):
        return (x - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
    clip = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
    with torch.no_grad():
        tokens = method.source_mlp(method.source_tower(normal(scaled, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))))
        halves = [torch.from_numpy(resized(picture, (128, 96)).copy()).permute(2, 0, 1)[None].float() / 255
                  for picture in pictures]
        fused = torch.cat([method.fusion(normal(scaled, *clip), normal(half, *clip)) for half in halves])
        targets = [resized((one * 255).round().byte().numpy(), (128, 96)).copy() for one in target]
        seen = torch.cat([method.fusion.embed(normal(torch.from_numpy(one).permute(2, 0, 1)[None].float() / 255, *clip))
                          for one in targets])
    assert torch.allclose(cond.encoded.tokens, tokens, atol=1e-5)
    assert torch.allclose(cond.encoded.fusion, fused, atol=1e-5)
    cosines = [float(a @ b / a.norm() / b.norm()) for a, b in zip(fused.double(), seen.double(), strict=True)]
    assert [float(line) for line in similarities.splitlines()] == pytest.approx(cosines, abs=1e-4)
    assert similarity == pytest.approx(np.mean(cosines), abs=1e-4)
    assert embed(nodes, fpdm, photo, walking(1))[1:3] == (0.0, "")


def test_two_poses_that_are_blended_are_told(nodes, fpdm, photo, caplog):
    """One pose for all and that pose in a batch are one."""
    blend = nodes.appearance.BlendAppearance.execute
    one, same, other = (embed(nodes, fpdm, source, walking(9)[frame:frame + 1] * count)[0] for source, frame, count in (
        (photo, 0, 1), (1 - photo, 0, 2), (1 - photo, 8, 1)))
    for second, told in ((same, False), (other, True)):
        caplog.clear()
        blend(one, second, 0.5)
        assert ("embeddings are of different poses" in caplog.text) == told


def test_a_checkpoint_of_133_points_sees_hands_and_face(host, nodes, tiny_method, tiny, photo):
    """From POSE_KEYPOINT, and through Fit Person, which brings the pose into the frame of training."""
    from dataclasses import replace
    preset = host.pack("pgpis_models.fpdm.config").CONFIGS["demo"].fusion
    method = tiny_method("fpdm", "FPDM", "fpdm_hands", 31, context=tiny.context, fusion=replace(preset, points=133))
    whole, formats = host.pack("pgpis_models.poses.wholebody"), host.pack("pgpis_models.poses.formats")
    points = np.random.default_rng(1).uniform(20, 90, (133, 2))
    with_hands = whole.wholebody_to_pose_keypoint(points, (128, 96))
    without = formats.to_pose_keypoint(formats.from_pose_keypoint(with_hands))
    seen, bare = embed(nodes, method, photo, with_hands), embed(nodes, method, photo, without)
    draw = host.pack("pgpis_models.fpdm.whole_drawing").draw_whole
    [expected] = formats.from_pose_keypoint(with_hands, whole=True)
    assert torch.equal(seen[3][0], torch.from_numpy(draw(expected, (256, 192))).float() / 255)
    assert (seen[3] > 0).any(-1).sum() > 2 * (bare[3] > 0).any(-1).sum() > 0
    assert not torch.allclose(seen[0].encoded.fusion, bare[0].encoded.fusion, atol=1e-4)
    fit = host.pack("nodes.framing").FitPerson
    for proportions in ("as given", "of the person"):
        [frame] = fit.execute(method, photo[:, :128, :96], pose=without, target_pose=with_hands,
                              proportions=proportions).result[4]
        hand = np.array(frame["people"][0]["hand_left_keypoints_2d"]).reshape(21, 3)
        body = np.array(frame["people"][0]["pose_keypoints_2d"]).reshape(18, 3)
        assert hand[:, 2].all()
        moved, before = hand[:, :2] - body[7, :2], points[91:112] - points[9]   # from the left wrist
        scale = np.linalg.norm(moved) / np.linalg.norm(before)
        assert np.abs(moved - scale * before).max() < 0.02 * np.abs(moved).max()   # the frame's box has whole pixels


def test_poses_on_another_canvas_mean_the_same(nodes, fpdm, photo):
    small, large = (embed(nodes, fpdm, photo, walking(1, canvas)) for canvas in ((128, 96), (1280, 960)))
    assert (small[3] - large[3]).abs().mean() < 0.002  # rounding only
    assert torch.nn.functional.cosine_similarity(small[0].encoded.fusion, large[0].encoded.fusion).item() > 0.999


@pytest.mark.parametrize(("more", "message"), [
    ({"photo": torch.rand(2, 64, 48, 3)}, "2 sources and 5 poses; expected equal numbers"),
    ({"target": torch.rand(2, 64, 48, 3)}, "the target IMAGE has 2 entries for 5 pictures; expected 1 or 5"),
    ({"target": torch.rand(1, 64, 48, 3) * 255}, "target IMAGE holds values.*expected 0..1"),
    ({"person": 3}, "Person 3 asked for, but frame 1 of 5 has 1"),
    ({"pose": []}, "without frames")])
def test_what_does_not_fit_is_said(nodes, fpdm, photo, more, message):
    arguments = {"photo": photo, "pose": walking()} | more
    with pytest.raises(ValueError, match=message):
        embed(nodes, fpdm, **arguments)


def test_checkpoints_of_other_methods_are_refused(nodes, fpdm, photo, demo):
    cfld = nodes.loaders.LoadCheckpoint.execute("cfld_tiny.safetensors").result[0]
    with pytest.raises(ValueError, match="checkpoint is cfld_tiny.*expects one of method fpdm"):
        embed(nodes, cfld, photo, walking(1))
    with pytest.raises(ValueError, match="checkpoint is fpdm_tiny.*expects one of method cfld"):
        nodes.appearance.AppearanceEmbedding.execute(fpdm, photo, walking(1), -1)


def test_equal_weights_run_two_terms_and_others_three(nodes, model, fpdm, photo):
    cond = embed(nodes, fpdm, photo, walking(2))[0]
    for scales, terms in (({"source": 2.0, "fusion": 2.0}, 2), ({"source": 2.0, "fusion": 3.0}, 3)):
        guider, *_ = nodes.sampling.GuiderNode.execute(model, cond, "default", **scales).result
        assert len(guider.needed.terms) == terms


def test_weights_that_predict_v_are_refused_on_a_model_sampled_as_another(nodes, model, fpdm, photo):
    """Stable Diffusion 2.1-base has the widths of 2.1 at 768, and predicts noise."""
    import dataclasses

    import comfy.model_sampling
    checkpoint = dataclasses.replace(fpdm.checkpoint, meta=dataclasses.replace(fpdm.checkpoint.meta, base="sd21"))
    method = dataclasses.replace(fpdm, checkpoint=checkpoint)

    class Epsilon(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.EPS):
        pass
    other = model.clone()
    other.add_object_patch("model_sampling", Epsilon())
    cond = embed(nodes, method, photo, walking(1))[0]
    nodes.sampling.Apply.execute(model, cond)
    for node in (nodes.sampling.Apply.execute, lambda *given: nodes.sampling.GuiderNode.execute(*given, "default")):
        with pytest.raises(ValueError, match="predicts v.*2.1 at 768"):
            node(other, cond)
    with pytest.raises(ValueError, match="predicts v"):
        sequence(nodes, other, method, photo, walking(1))


# --- sequences ----------------------------------------------------------------------------------------------

def test_a_sequence_in_chunks_is_what_ksampler_makes_of_all_frames_at_once(host, nodes, model, fpdm, photo):
    import comfy.sample
    cond = embed(nodes, fpdm, photo, walking())[0]
    patched, positive, negative, latent = nodes.sampling.Apply.execute(model, cond).result
    start = comfy.sample.prepare_noise(latent["samples"], 5)
    with torch.inference_mode():
        together = comfy.sample.sample(patched, start, 3, 2.0, "euler", "normal", positive, negative, latent["samples"],
                                       seed=5, disable_pbar=True)
        made = {chunk: sequence(nodes, model, fpdm, photo, walking(), chunk=chunk) for chunk in (0, 1, 2)}
    for chunk, frames in made.items():
        assert frames.shape == (FRAMES, 4, 16, 12)
        assert (frames - together).abs().max() < 1e-4 * together.abs().max(), chunk
    assert (together[0] - together[1]).abs().max() > 0.05


def test_the_same_noise_makes_equal_frames_of_equal_poses(nodes, model, fpdm, photo):
    first, *_ = walking()
    frames = [first, *walking()[1:3], first]
    same = sequence(nodes, model, fpdm, photo, frames, noise=nodes.sequence.SAME)
    own = sequence(nodes, model, fpdm, photo, frames)
    size = same.abs().max()
    assert (same[0] - same[3]).abs().max() < 1e-4 * size and (same[0] - same[1]).abs().max() > 1e-3 * size
    assert (own[0] - own[3]).abs().max() > 0.1 * size
    one = sequence(nodes, model, fpdm, photo, frames[2:3], noise=nodes.sequence.SAME)
    assert (one[0] - same[2]).abs().max() < 1e-4 * size


def test_empty_frames_are_held_or_named(nodes, model, fpdm, photo):
    frames = walking(4)
    for gone in (0, 2):
        frames[gone] = frames[gone] | {"people": []}
    made = sequence(nodes, model, fpdm, photo, frames, noise=nodes.sequence.SAME)
    size = made.abs().max()
    assert (made[0] - made[1]).abs().max() < 1e-4 * size and (made[2] - made[1]).abs().max() < 1e-4 * size
    assert (made[3] - made[1]).abs().max() > 1e-3 * size
    with pytest.raises(ValueError, match="No person in frame 1 of 4"):
        sequence(nodes, model, fpdm, photo, frames, empty_frames="error")
    # beside the sampler in the workflow: no reason to stop
    drawn, = nodes.pose.loading.DrawPose.execute(frames, 0, 0, -1).result
    assert [bool(picture.any()) for picture in drawn] == [False, True, False, True]
    with pytest.raises(ValueError, match="No person in frame 1 of 2"):
        sequence(nodes, model, fpdm, photo, [frames[0], frames[2]])


def test_a_person_who_has_left_the_canvas_is_held_or_named(nodes, model, fpdm, photo):
    frames = walking(3)
    flat = np.array(frames[1]["people"][0]["pose_keypoints_2d"]).reshape(18, 3) + (500, 0, 0)
    frames[1] = frames[1] | {"people": [{"pose_keypoints_2d": flat.ravel().tolist()}]}
    made = sequence(nodes, model, fpdm, photo, frames, noise=nodes.sequence.SAME)
    size = made.abs().max()
    assert (made[1] - made[0]).abs().max() < 1e-4 * size < (made[2] - made[0]).abs().max()
    for refusing in (lambda: sequence(nodes, model, fpdm, photo, frames, empty_frames="error"),
                     lambda: embed(nodes, fpdm, photo, frames)):
        with pytest.raises(ValueError, match="no joint lies on the canvas.*frame 2 of 3"):
            refusing()


@pytest.mark.parametrize("name", ["ddpm", "euler_ancestral", "dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde_gpu", "er_sde",
                                  "seeds_2", "sa_solver"])
def test_noise_of_the_steps_belongs_to_the_frame_and_not_to_its_chunk(host, nodes, model, fpdm, photo, name):
    import comfy.sample
    first, second = walking(2)
    pose = [second, first, first]   # in chunks of two the last is the first of its own
    with torch.inference_mode():
        still = sequence(nodes, model, fpdm, photo, pose, chunk=2, sampler_name=name, noise=nodes.sequence.SAME)
        moving, parted = (sequence(nodes, model, fpdm, photo, pose, chunk=chunk, sampler_name=name) for chunk in (4, 1))
        assert (parted - moving).abs().max() < 1e-4 * moving.abs().max()
        assert (still[1] - still[2]).abs().max() < 1e-4 * still.abs().max()   # one pose, one noise, one picture
        assert (moving[1] - moving[2]).abs().max() > 0.05
        cond = embed(nodes, fpdm, photo, pose[1:2])[0]
        patched, positive, negative, latent = nodes.sampling.Apply.execute(model, cond).result
        start = comfy.sample.prepare_noise(latent["samples"], 5)
        alone = comfy.sample.sample(patched, start, 3, 2.0, name, "normal", positive, negative, latent["samples"], seed=5,
                                    disable_pbar=True)
    assert (alone - still[1:2]).abs().max() < 1e-4 * alone.abs().max()


def test_the_source_is_read_once_and_no_chunk_holds_more_frames_than_it_says(nodes, model, fpdm, photo):
    method, unet, counts = fpdm.checkpoint.method, model.model.diffusion_model, {}

    def count(name):
        return lambda module, arguments: counts.setdefault(name, []).append(len(arguments[0]))
    hooks = [module.register_forward_pre_hook(count(name)) for name, module in
             (("source", method.source_tower), ("pose", method.pose_guider), ("unet", unet))]
    try:
        sequence(nodes, model, fpdm, photo, walking())
    finally:
        for hook in hooks:
            hook.remove()
    assert counts["source"] == [1] and counts["pose"] == [2, 2, 1]
    assert counts["unet"] == [4] * 6 + [2] * 3  # two terms of each frame in one call


def test_chunks_follow_the_free_memory(nodes, model, monkeypatch):
    import comfy.model_management
    fits = nodes.sequence.chunk_that_fits
    need = model.memory_required([8, 4, 16, 12]) * 1.5 + max(0, model.model_size() - model.loaded_size())
    for free, frames, expected in ((need + 1, 100, 4), (need - 1, 100, 2), (0, 100, 1), (1e15, 100, 16), (1e15, 5, 8),
                                   (1e15, 1, 1)):
        monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda *_, value=free: value)
        assert fits(model, (16, 12), frames) == expected, (free, frames)


def test_the_model_stays_as_it_was(nodes, model, fpdm, photo):
    import comfy.model_management
    comfy.model_management.unload_all_models()  # the weights of the test before
    before = {name: list(patches) for name, patches in model.patches.items()}
    options = json.dumps(sorted(model.model_options["transformer_options"]))
    weight = model.model.diffusion_model.input_blocks[0][0].weight.clone()
    sequence(nodes, model, fpdm, photo, walking(2))
    comfy.model_management.unload_all_models()
    assert before == model.patches and options == json.dumps(sorted(model.model_options["transformer_options"]))
    assert torch.equal(weight, model.model.diffusion_model.input_blocks[0][0].weight)


def test_other_methods_that_read_the_source_apart_make_sequences_too(nodes, model, photo, demo, qen):
    cfld = nodes.loaders.LoadCheckpoint.execute("cfld_tiny.safetensors").result[0]
    for method in (cfld, qen):
        made = sequence(nodes, model, method, photo, walking(3))
        assert made.shape == (3, 4, 16, 12) and torch.isfinite(made).all()
        alone = torch.cat([sequence(nodes, model, method, photo, [frame], noise=nodes.sequence.SAME)
                           for frame in walking(3)])
        together = sequence(nodes, model, method, photo, walking(3), noise=nodes.sequence.SAME)
        assert (alone - together).abs().max() < 1e-4 * together.abs().max()
        assert (together[0] - together[1]).abs().max() > 1e-3 * together.abs().max()
    with pytest.raises(ValueError, match="2 sources for one sequence; expected one"):
        sequence(nodes, model, cfld, photo.expand(2, -1, -1, -1), walking(3))


def test_graphs_with_both_nodes_run_in_the_host(host, demo, fpdm, photo):
    Image.fromarray((photo[0] * 255).byte().numpy()).save(host.base / "input" / "fpdm_source.png")
    text = json.dumps(walking(3))
    nodes = {
        "base": ("PGPISLoadDemoBase", {}), "method": ("PGPISLoadCheckpoint", {"file": "fpdm_tiny.safetensors"}),
        "source": ("LoadImage", {"image": "fpdm_source.png"}),
        "pose": ("PGPISLoadPose", {"file": "(the text below)", "text": text, "canvas_width": 96, "canvas_height": 128}),
        "cond": ("PGPISFusionEmbedding", {"method": ["method", 0], "source": ["source", 0], "pose": ["pose", 0],
                                          "person": -1, "empty_frames": "error", "target": ["source", 0]}),
        "apply": ("PGPISApply", {"model": ["base", 0], "cond": ["cond", 0]}),
        "sampler": ("KSampler", {"model": ["apply", 0], "positive": ["apply", 1], "negative": ["apply", 2],
                                 "latent_image": ["apply", 3], "seed": 1, "steps": 2, "cfg": 2.0, "sampler_name": "euler",
                                 "scheduler": "normal", "denoise": 1.0}),
        "decode": ("VAEDecode", {"samples": ["sampler", 0], "vae": ["base", 1]}),
        "save": ("SaveImage", {"images": ["decode", 0], "filename_prefix": "fpdm"}),
        "frames": ("PGPISPoseSequenceSampler", {
            "model": ["base", 0], "method": ["method", 0], "source": ["source", 0], "pose": ["pose", 0], "person": -1,
            "empty_frames": "hold", "seed": 1, "noise": "same for all frames", "steps": 2, "cfg": 2.0,
            "sampler_name": "euler", "scheduler": "normal", "chunk": 0}),
        "pictures": ("VAEDecode", {"samples": ["frames", 0], "vae": ["base", 1]}),
        "film": ("SaveAnimatedWEBP", {"images": ["pictures", 0], "filename_prefix": "film", "fps": 8.0, "lossless": True,
                                      "quality": 80, "method": "default"})}
    result = host.run({name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()})
    assert result.success, result.errors
    assert len(result.outputs["save"]["images"]) == 3
    [film] = result.outputs["film"]["images"]
    with Image.open(host.base / "output" / film["subfolder"] / film["filename"]) as picture:
        assert picture.n_frames == 3 and picture.size == (96, 128)


# --- poses from files ---------------------------------------------------------------------------------------

def test_the_readers_poses_come_through_load_pose(host, nodes, fpdm, photo):
    load, folder = nodes.pose.loading.LoadPose, host.base / "input"
    lines = "\n".join(f"{60 + 4 * n} {20 + 10 * n}" for n in range(17)) + "\n-1 -1"
    (folder / "one.txt").write_text(lines)
    frames = load.execute("one.txt", "", 1, 1).result[0]
    assert frames == load.execute("(the text below)", lines, 1, 1).result[0]
    [pose] = host.pack("pgpis_models.poses.formats").from_pose_keypoint(frames)
    assert pose.canvas == (256, 176) and pose.xy[0].tolist() == [20, 20] and not pose.present[17]
    points = np.random.default_rng(0).uniform(5, 200, (4, 133, 3))
    points[1] = 0  # an empty frame
    np.save(folder / "video.npy", points)
    frames = load.execute("video.npy", "", 210, 260).result[0]
    assert len(frames) == 4 and frames[1]["people"] == [] and frames[0]["canvas_height"] == 260
    assert len(frames[0]["people"][0]["hand_left_keypoints_2d"]) == 63
    with pytest.raises(ValueError, match="No person in frame 2 of 4"):
        embed(nodes, fpdm, photo, frames)
    cond = embed(nodes, fpdm, photo, frames, empty_frames="hold")[0]
    assert torch.equal(cond.encoded.fusion[1], cond.encoded.fusion[0])
    (folder / "short.txt").write_text("1 2\n" * 17)
    with pytest.raises(ValueError, match="short.txt has 17 lines; expected 18"):
        load.execute("short.txt", "", 1, 1)
    np.save(folder / "empty.npy", np.zeros((2, 133, 3)))
    with pytest.raises(ValueError, match="No person in frame 1 of 2"):
        load.execute("empty.npy", "", 210, 260)
