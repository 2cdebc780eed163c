"""The nodes in graphs that the host itself executes, on tiny random models."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

ROW = ("person.jpg: [30, 50, 50, 80, 110, 50, 80, 110, 115, 160, 210, 115, 160, 210, 25, 25, 28, 28]: "
       "[88, 88, 66, 58, 55, 110, 118, 120, 75, 74, 72, 100, 102, 104, 84, 92, 78, 98]")


@pytest.fixture(scope="module")
def source(host, demo):
    h, w = demo.size
    picture = np.random.default_rng(0).integers(0, 255, (h, w, 3), dtype=np.uint8)
    Image.fromarray(picture).save(host.base / "input" / "source.png")
    return picture


def embedding(source, person):
    return ("PGPISAppearanceEmbedding", {"method": ["method", 0], "source": [source, 0], "pose": ["pose", 0],
                                         "person": person})


def ksampler(steps):
    return ("KSampler", {"model": ["apply", 0], "positive": ["apply", 1], "negative": ["apply", 2],
                         "latent_image": ["apply", 3], "seed": 1, "steps": steps, "cfg": 2.0, "sampler_name": "euler",
                         "scheduler": "normal", "denoise": 1.0})


def graph(**more):
    nodes = {
        "base": ("PGPISLoadDemoBase", {}),
        "method": ("PGPISLoadCheckpoint", {"file": "cfld_tiny.safetensors"}),
        "source": ("LoadImage", {"image": "source.png"}),
        "pose": ("PGPISLoadPose", {"file": "(the text below)", "text": f"{ROW}\n{ROW}", "canvas_width": 176,
                                   "canvas_height": 256}),
        "cond": embedding("source", -1),
    } | more
    return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}


def saved(host, result):
    """The pictures that SaveImage wrote, each (H, W, 3)."""
    assert result.success, result.errors
    files = [item for output in result.outputs.values() for item in output.get("images", ())]
    folders = {"output": host.base / "output", "temp": host.base / "temp"}
    return [np.asarray(Image.open(folders[f["type"]] / f["subfolder"] / f["filename"])) for f in files]


@pytest.mark.hosts
def test_apply_runs_under_an_ordinary_ksampler(host, demo, source):
    result = host.run(graph(
        apply=("PGPISApply", {"model": ["base", 0], "cond": ["cond", 0]}),
        sampler=ksampler(3),
        decode=("VAEDecode", {"samples": ["sampler", 0], "vae": ["base", 1]}),
        skeleton=("PGPISDrawPose", {"pose": ["pose", 0], "width": 96, "height": 128, "person": -1}),
        grid=("PGPISCompareGrid", {"image_1": ["source", 0], "image_2": ["skeleton", 0], "image_3": ["decode", 0],
                                   "target": ["source", 0], "labels": "source\nOpenPose"}),
        save=("SaveImage", {"images": ["decode", 0], "filename_prefix": "a"}),
        show=("SaveImage", {"images": ["grid", 0], "filename_prefix": "b"})))
    pictures = saved(host, result)
    assert sorted(p.shape for p in pictures) == [(128, 96, 3)] * 2 + [(8 + 2 * (128 + 36 + 8), 8 + 4 * (96 + 8), 3)]


def test_an_edited_pose_runs_where_any_pose_does(host, demo, source):
    """Mirrored twice it is the pose itself; retargeted to itself as well."""
    change = {"mirror": True, "scale": 1.0, "shift_right": 0.0, "shift_down": 0.0, "person": -1}
    draw = {"width": 96, "height": 128, "person": -1}
    pictures = saved(host, host.run(graph(
        once=("PGPISEditPose", {"pose": ["pose", 0], **change}), twice=("PGPISEditPose", {"pose": ["once", 0], **change}),
        same=("PGPISEditPose", {"pose": ["twice", 0], "retarget_to": ["pose", 0], **change, "mirror": False}),
        own=("PGPISDrawPose", {"pose": ["pose", 0], **draw}), made=("PGPISDrawPose", {"pose": ["same", 0], **draw}),
        flipped=("PGPISDrawPose", {"pose": ["once", 0], **draw}),
        save=("SaveImage", {"images": ["own", 0], "filename_prefix": "p"}),
        show=("SaveImage", {"images": ["made", 0], "filename_prefix": "q"}),
        other=("SaveImage", {"images": ["flipped", 0], "filename_prefix": "r"}))))
    assert len(pictures) == 6
    assert sum(np.array_equal(pictures[0], picture) for picture in pictures) == 4   # two frames, drawn twice


@pytest.mark.hosts
def test_guider_runs_under_sampler_custom_advanced(host, demo, source):
    def run(mode, **weights):
        scales = {"pose": 1.5, "appearance": 2.5, "biases": 1.2, "prompt": 1.1} | weights
        result = host.run(graph(
            guider=("PGPISGuider", {"model": ["base", 0], "cond": ["cond", 0], "mode": mode, **scales}),
            noise=("RandomNoise", {"noise_seed": 4}), sampler=("KSamplerSelect", {"sampler_name": "euler"}),
            sigmas=("BasicScheduler", {"model": ["base", 0], "scheduler": "normal", "steps": 1, "denoise": 1.0}),
            sample=("SamplerCustomAdvanced", {"noise": ["noise", 0], "guider": ["guider", 0], "sampler": ["sampler", 0],
                                              "sigmas": ["sigmas", 0], "latent_image": ["guider", 1]}),
            decode=("VAEDecode", {"samples": ["sample", 0], "vae": ["base", 1]}),
            save=("SaveImage", {"images": ["decode", 0], "filename_prefix": "g"})))
        return saved(host, result)
    modes = list(host.pack("pgpis_models.cfld.model").GUIDANCE_MODES)
    results = {mode: run(mode) for mode in modes}
    assert len(modes) == 6 and all(len(pictures) == 2 for pictures in results.values())
    assert np.array_equal(run("uc_full", biases=9.0)[0], results["uc_full"][0])  # a weight that the mode does not use
    assert not np.array_equal(results["uc_full"][0], results["uc_down_full"][0])


def masked(host, guided, feather, denoise=1.0, reference="reference.png", mask="mask.png"):
    inputs = {"guider": ["guider", 0], "latent": ["guider", 1]} if guided else \
        {"model": ["apply", 0], "positive": ["apply", 1], "negative": ["apply", 2], "latent": ["apply", 3]}
    return saved(host, host.run(graph(
        apply=("PGPISApply", {"model": ["base", 0], "cond": ["cond", 0]}),
        guider=("PGPISGuider", {"model": ["base", 0], "cond": ["cond", 0], "mode": "uc_full", "pose": 2.0, "appearance": 2.0,
                                "biases": 2.0, "prompt": 2.0}),
        reference=("LoadImage", {"image": reference}),
        mask=("LoadImageMask", {"image": mask, "channel": "red"}),
        sample=("PGPISMaskedSampler", {"vae": ["base", 1], "reference": ["reference", 0], "mask": ["mask", 0],
                                       "feather": feather, "seed": 3, "steps": 3, "cfg": 2.0, "sampler_name": "euler",
                                       "scheduler": "normal", "denoise": denoise, "grow": 0.0, **inputs}),
        save=("SaveImage", {"images": ["sample", 1], "filename_prefix": "m"}))))


@pytest.fixture(scope="module")
def reference(host, source):
    picture = np.random.default_rng(1).integers(0, 255, (200, 150, 3), dtype=np.uint8)
    mask = np.zeros((200, 150, 3), np.uint8)
    mask[60:140, 40:110] = 255
    Image.fromarray(picture).save(host.base / "input" / "reference.png")
    Image.fromarray(mask).save(host.base / "input" / "mask.png")
    return picture, mask[..., 0] > 0


@pytest.mark.parametrize("guided", [True, False], ids=["guider", "model and conditionings"])
def test_masked_sampler_keeps_every_pixel_outside_the_mask(guided, host, demo, reference):
    picture, mask = reference
    for made in masked(host, guided, feather=0.07):
        assert made.shape == picture.shape
        assert np.array_equal(made[~mask], picture[~mask])
        assert (made[mask] != picture[mask]).mean() > 0.5


def test_masked_sampler_of_guider_and_of_equal_cfg_give_the_same(host, demo, reference):
    for a, b in zip(masked(host, True, 0.05), masked(host, False, 0.05), strict=True):
        assert np.abs(a.astype(int) - b.astype(int)).max() <= 1


def test_a_black_mask_gives_the_reference_back_and_a_white_one_samples_plainly(host, demo, reference):
    for name, grey in (("black", 0), ("white", 255)):
        Image.fromarray(np.full((200, 150, 3), grey, np.uint8)).save(host.base / "input" / f"{name}.png")
    kept = masked(host, False, 0.05, mask="black.png")
    assert len(kept) == 2 and all(np.array_equal(picture, reference[0]) for picture in kept)
    h, w = demo.size
    small = Image.fromarray(reference[0]).resize((w, h))
    small.save(host.base / "input" / "small.png")
    plain = saved(host, host.run(graph(
        apply=("PGPISApply", {"model": ["base", 0], "cond": ["cond", 0]}),
        sampler=("KSampler", {**ksampler(3)[1], "seed": 3}),
        decode=("VAEDecode", {"samples": ["sampler", 0], "vae": ["base", 1]}),
        save=("SaveImage", {"images": ["decode", 0], "filename_prefix": "w"}))))
    for made, expected in zip(masked(host, False, 0.05, reference="small.png", mask="white.png"), plain, strict=True):
        assert np.array_equal(made, expected)


def test_the_command_line_edits_as_the_nodes_do(host, demo, reference):
    """Masked, with the same noise: the host's euler on sgm_uniform, and DDIM on trailing timesteps on diffusers."""
    other = np.random.default_rng(2).integers(0, 255, (*demo.size, 3), dtype=np.uint8)
    Image.fromarray(other).save(host.base / "input" / "donor.png")
    (host.base / "input" / "row.txt").write_text(ROW)
    pose = {"file": "(the text below)", "text": ROW, "canvas_width": 176, "canvas_height": 256}
    [made] = saved(host, host.run(graph(
        pose=("PGPISLoadPose", pose), donor=("LoadImage", {"image": "donor.png"}), cond=embedding("donor", -1),
        apply=("PGPISApply", {"model": ["base", 0], "cond": ["cond", 0]}),
        reference=("LoadImage", {"image": "reference.png"}),
        mask=("LoadImageMask", {"image": "mask.png", "channel": "red"}),
        sample=("PGPISMaskedSampler", {
            "model": ["apply", 0], "positive": ["apply", 1], "negative": ["apply", 2], "latent": ["apply", 3],
            "vae": ["base", 1], "reference": ["reference", 0], "mask": ["mask", 0], "feather": 0.05, "seed": 3 * 1_000_003,
            "steps": 4, "cfg": 2.0, "sampler_name": "euler", "scheduler": "sgm_uniform", "denoise": 1.0, "grow": 0.03}),
        save=("SaveImage", {"images": ["sample", 1], "filename_prefix": "n"}))))
    files, inputs = host.base / "models" / "pgpis", host.base / "input"
    host.pack("pgpis_models.generate").main([
        *(f"--{flag}={files / name}.safetensors" for flag, name in (("checkpoint", "cfld_tiny"), ("base", "demo_base"),
                                                                    ("vae", "demo_vae"))),
        *(f"--{flag}={inputs / name}" for flag, name in (("source", "reference.png"), ("donor", "donor.png"),
                                                         ("mask", "mask.png"), ("pose", "row.txt"))),
        "--canvas=256x176", "--mask-grow=0.03", "--mask-feather=0.05", "--seed=3", "--steps=4", "--sampler=ddim",
        "--weight=pose=2", "--weight=appearance=2", f"--out={host.base / 'output' / 'edited.png'}", "--device=cpu"])
    edited = np.asarray(Image.open(host.base / "output" / "edited.png"))
    away = np.abs(made.astype(int) - edited)
    print(f"differ by {away.max()} of 255 at most, {away.mean():.3f} on average")
    assert away.max() <= 2
    assert (np.abs(made.astype(int) - reference[0]).max(-1) > 20).mean() > 0.1


def test_feather_fades_inside_the_mask_only(host):
    masking = host.pack("pgpis_models.garments.feathering")
    mask = torch.zeros(1, 40, 60)
    mask[:, 10:30, 15:] = 1
    soft = masking.feathered(mask, (40, 60), 8)[0, 0]
    assert not soft[mask[0] == 0].any() and soft[20, 40] == 1 and 0 < soft[20, 16] < soft[20, 19] < 1
    assert soft[20, 59] == 1, "no fade at the picture's border"
    assert torch.equal(masking.feathered(mask, (40, 60), 0)[0], mask)
    rise = soft[20, 15:24]                       # eight pixels and the first whole one, in equal steps
    assert torch.allclose(rise, torch.arange(1, 10).float().clamp(max=9) / 9)
    made, kept = torch.rand(1, 3, 40, 60), torch.rand(1, 3, 40, 60)
    out = masking.paste(made, kept, soft[None, None])
    assert torch.equal(out[..., mask[0] == 0], kept[..., mask[0] == 0])
    assert torch.equal(out[..., soft == 1], made[..., soft == 1])


@pytest.mark.parametrize("width", [1, 2, 7, 16, 31])
def test_feather_leaves_narrow_masks_their_middle(host, width):
    mask = torch.zeros(1, 80, 80)
    mask[:, :, 20:20 + width] = 1
    mask[:, 30:50, 60:] = 0.5
    soft = host.pack("pgpis_models.garments.feathering").feathered(mask, (80, 80), 16)[0, 0]
    across, middle = soft[5], 20 + width // 2
    assert across[middle] == 1 and not across[:20].any() and not across[20 + width:60].any()
    inside = across[20:20 + width]
    assert (inside[:(width + 1) // 2].diff() > 0).all() and torch.equal(inside, inside.flip(0))
    assert soft.max() == 1 and soft[30:50, 60:].max() == 0.5, "a soft mask stays as soft as it was"
    everything = host.pack("pgpis_models.garments.feathering").feathered(torch.ones(1, 8, 8), (8, 8), 16)
    assert (everything == 1).all()


def test_blend_mixes_appearance_and_keeps_the_first_pose(host, demo, source):
    other = np.random.default_rng(2).integers(0, 255, (*demo.size, 3), dtype=np.uint8)
    Image.fromarray(other).save(host.base / "input" / "other.png")
    nodes = {"second": ("LoadImage", {"image": "other.png"}), "cond2": embedding("second", 0)}
    weights = {"start": 0.0, "middle": 0.5, "end": 1.0}
    for name in ("cond", "cond2", *weights):
        if name in weights:
            nodes[name] = ("PGPISBlendAppearance", {"first": ["cond", 0], "second": ["cond2", 0], "weight": weights[name]})
        nodes[f"apply {name}"] = ("PGPISApply", {"model": ["base", 0], "cond": [name, 0]})
        kind, inputs = ksampler(2)
        nodes[f"sampler {name}"] = (kind, {key: [f"apply {name}", value[1]] if isinstance(value, list) else value
                                           for key, value in inputs.items()})
        nodes[f"save {name}"] = ("SaveLatent", {"samples": [f"sampler {name}", 0], "filename_prefix": name})
    result = host.run(graph(**nodes))
    assert result.success, result.errors
    first, second, start, middle, end = (
        load_file(host.base / "output" / result.outputs[f"save {name}"]["latents"][0]["filename"])["latent_tensor"]
        for name in ("cond", "cond2", *weights))
    assert (start - first).abs().max() < 1e-5 and (end - second).abs().max() < 1e-5
    assert (first - second).abs().max() > 0.1 and min((middle - one).abs().max() for one in (first, second)) > 0.01


@pytest.mark.hosts
def test_the_demo_base_loads_as_the_diffusers_unet_it_was_saved_from(host, demo, tiny):
    model, vae = host.pack("nodes.loaders").LoadDemoBase.execute().result
    base, coder = host.pack("pgpis_models.unet.base"), host.pack("pgpis_models.unet.autoencoder")
    unet, _ = base.load_unet(demo.folder / "demo_base.safetensors")
    x, t = torch.randn(2, 4, *tiny.latent), torch.tensor([400.0, 10.0])
    context = torch.randn(2, 5, tiny.context)
    with torch.no_grad():
        ours = model.model.diffusion_model(x, t, context=context)
        theirs = unet(x, t, context, return_dict=False)[0]
        assert (ours - theirs).abs().max() < 1e-5
        assert model.model.model_type.name == "V_PREDICTION" and model.model_dtype() == torch.float32
        picture = torch.rand(1, 64, 48, 3)
        autoencoder = coder.load_vae(demo.folder / "demo_vae.safetensors")
        latents = coder.encode_latents(autoencoder, picture.movedim(-1, 1) * 2 - 1)
        host_latents = model.model.process_latent_in(vae.encode(picture))
        assert (host_latents - latents).abs().max() < 1e-4
        decoded = vae.decode(vae.encode(picture)).movedim(-1, 1)
        assert (decoded - coder.decode_latents(autoencoder, latents)).abs().max() < 1e-4


def test_poses_load_from_files_text_and_rows(host, demo):
    load = host.pack("nodes.pose.loading").LoadPose
    pose = host.pack("pgpis_models.poses.formats")
    frames = load.execute("(the text below)", ROW, 1, 1).result[0]
    people = pose.from_pose_keypoint(frames)
    assert people[0].canvas == (256, 176) and people[0].present.all() and people[0].xy[1].tolist() == [88, 50]
    (host.base / "input" / "pose.json").write_text(json.dumps(frames))
    assert load.execute("pose.json", "", 1, 1).result[0] == frames
    bare = {"people": frames[0]["people"]}  # as OpenPose writes it
    assert load.execute("(the text below)", json.dumps(bare), 176, 256).result[0][0]["canvas_width"] == 176
    assert load.execute("(the text below)", ROW, 0, 0).result[0] == frames   # rows have a frame of their own
    with pytest.raises(ValueError, match="canvas_width = None.*give it when loading"):
        load.execute("(the text below)", json.dumps(bare), 0, 0)
    with pytest.raises(ValueError, match="canvas_width is 176 and canvas_height 0; expected both, or 0 for both"):
        load.execute("(the text below)", json.dumps(bare), 176, 0)
    far = json.dumps({"people": [{"pose_keypoints_2d": [900.0, 500.0, 1.0] * 18}]})   # found in a film of 1280 x 720
    with pytest.raises(ValueError, match="on the canvas of 176x256 .* at x 900 to 900, y 500 to 500; .* Set canvas"):
        load.execute("(the text below)", far, 176, 256)
    assert load.execute("(the text below)", far, 1280, 720).result[0][0]["canvas_height"] == 720
    for name in ("../../etc/passwd", "../output/saved.json", "nobody.json [output]"):
        with pytest.raises(ValueError, match="no pose file"):
            load.execute(name, "", 1, 1)


def test_poses_that_other_nodes_saved_are_found_in_the_output_folder_too(host):
    """As controlnet_aux's Save Pose Keypoints writes them, and in sub-folders of both."""
    load = host.pack("nodes.pose.loading").LoadPose
    person = {"pose_keypoints_2d": [[0.5, 0.25, 1.0]] * 18, "face_keypoints_2d": None}
    frames = [{"people": [person], "canvas_height": 64, "canvas_width": 48}]
    for place in ("output/saved_00001.json", "output/dancers/two.json", "input/dancers/one.json", "output/notes.txt"):
        (host.base / place).parent.mkdir(exist_ok=True)
        (host.base / place).write_text(json.dumps(frames))
    offered = load.define_schema().inputs[0].options
    names = ["saved_00001.json [output]", "dancers/two.json [output]", "dancers/one.json"]
    assert set(names) <= set(offered) and not any("notes" in name for name in offered)
    for name in names:
        [made] = load.execute(name, "", 0, 0).result[0]
        assert [len(made["people"][0][key]) for key in ("pose_keypoints_2d", "face_keypoints_2d")] == [54, 210]
        assert load.fingerprint_inputs(name, "", 0, 0)[1] > 0
    run = host.run({"pose": {"class_type": "PGPISLoadPose", "inputs": {"file": names[1], "text": "", "canvas_width": 0,
                                                                      "canvas_height": 0}},
                    "draw": {"class_type": "PGPISDrawPose", "inputs": {"pose": ["pose", 0], "width": 0, "height": 0,
                                                                      "person": -1}},
                    "save": {"class_type": "SaveImage", "inputs": {"images": ["draw", 0], "filename_prefix": "found"}}})
    assert run.success, run.errors


def test_folders_and_links_that_lead_nowhere_are_no_pose_files(host):
    folder = host.base / "input"
    (folder / "frames.json").mkdir()
    (folder / "gone.json").symlink_to(folder / "nowhere.json")
    (folder / "frames.json" / "one.json").write_text("[]")
    try:
        names = {name for name in host.pack("nodes.pose.loading")._pose_files() if name.startswith(("frames", "gone"))}
        assert names == {"frames.json/one.json"}
    finally:
        shutil.rmtree(folder / "frames.json")
        (folder / "gone.json").unlink()


def test_the_hosts_own_drawing_takes_every_pose_that_is_given(host):
    try:
        from comfy_extras.nodes_sdpose import SDPoseDrawKeypoints
    except ImportError:
        pytest.skip("this host has no SDPose")
    load, edit = host.pack("nodes.pose.loading").LoadPose, host.pack("nodes.pose.loading").EditPose
    frames = load.execute("(the text below)", json.dumps({"people": [{"pose_keypoints_2d": [20.0, 30.0, 1.0] * 25}]}), 48,
                          64).result[0]
    for pose in (frames, edit.execute(frames, True, 1.1, 0.0, 0.0, -1).result[0]):
        drawn = SDPoseDrawKeypoints.execute(pose, True, True, True, True, 4, 3, 0.3, True).result[0]
        assert drawn.shape == (1, 64, 48, 3)


def test_openpose_results_become_frames(host):
    from types import SimpleNamespace as S
    joints = [S(x=0.5, y=0.25)] * 17 + [None]
    frame = host.pack("nodes.pose.detecting").frame_of([S(body=S(keypoints=joints))], (200, 100))
    keypoints, = host.pack("pgpis_models.poses.formats").from_pose_keypoint([frame])
    assert keypoints.xy[0].tolist() == [50, 50] and not keypoints.present[17] and keypoints.canvas == (200, 100)
