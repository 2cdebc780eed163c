"""FPDM's embedding and its guidance, and poses from files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tests.host.fpdm.helpers import embed, sequence, walking


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
