"""What people do wrong, as a list: each mistake gives a sentence that says what came and what to do, and nothing is lost.

A mistake is a change of one graph that works. What is said is the error of the run or, where the run goes on, a notice.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pgpis_models.poses.formats import to_pose_keypoint
from tests.helpers.photos import GROUND, figure, photo

SIZE = (300, 260)          # (H, W) of the photo
TEXT = "(the text below)"


def of(name: str) -> list:
    """A link to a thing that the test has made."""
    return [f"given {name}", 0]


GRAPH = {
    "photo": ("LoadImage", {"image": "mistakes.png"}),
    "pose": ("PGPISLoadPose", {"file": TEXT, "text": "", "canvas_width": 0, "canvas_height": 0}),
    "transfer": ("PGPISPoseTransfer", {"model": of("model"), "method": of("method"), "image": ["photo", 0],
                                       "pose": ["pose", 0]}),
    "sampler": ("KSampler", {"model": ["transfer", 0], "positive": ["transfer", 1], "negative": ["transfer", 2],
                             "latent_image": ["transfer", 3], "seed": 1, "steps": 1, "cfg": 2.0, "sampler_name": "euler",
                             "scheduler": "normal", "denoise": 1.0}),
    "decode": ("VAEDecode", {"samples": ["sampler", 0], "vae": of("vae")}),
    "paste": ("PGPISPasteBack", {"image": ["decode", 0], "frame": ["transfer", 4], "original": ["photo", 0], "feather": 4,
                                 "match_colours": True}),
    "save": ("PreviewImage", {"images": ["paste", 0]})}


def latents(width: int, height: int, count: int = 1) -> tuple:
    return "EmptyLatentImage", {"width": width, "height": height, "batch_size": count}


def fitted(**inputs) -> dict:
    """The photo by way of Fit Person."""
    return {"fit": ("PGPISFitPerson", {"method": of("method"), "image": ["photo", 0], **inputs}),
            "transfer.image": ["fit", 0], "transfer.fit": False, "paste.frame": ["fit", 6]}


def from_file(name: str) -> dict:
    """The method from a file."""
    return {"transfer.method": ["file", 0], "file": ("PGPISLoadCheckpoint", {"file": f"{name}.safetensors"})}


OTHER = ("PGPISPoseTransfer", GRAPH["transfer"][1] | {"method": ["other method", 0]})
OTHERS = {"other": OTHER, "other method": ("PGPISLoadCheckpoint", {"file": "cfld_other.safetensors"})}
MCLD = {"transfer.method": of("mcld"), "transfer.fit": False}
DENSE = {**MCLD, "transfer.pose": None, "transfer.densepose": of("iuv")}

# (the mistake, what is changed in the graph, what is said)
MISTAKES = [
    # models
    ("the base MODEL at the sampler", {"sampler.model": of("model")},
     "CONDITIONING is of cfld_tiny.safetensors .*the MODEL is one without a PGPIS method.*Connect its MODEL output"),
    ("the MODEL of another checkpoint at the sampler", {**OTHERS, "sampler.model": ["other", 0]},
     "CONDITIONING is of cfld_tiny.safetensors .*the MODEL is that of cfld_other.safetensors"),
    ("two checkpoints on one MODEL", {**OTHERS, "transfer.model": ["other", 0]},
     "already carries the weights of another PGPIS checkpoint.*connect the base MODEL to each"),
    ("a MODEL that is no Stable Diffusion 1 or 2", {"transfer.model": of("sdxl")},
     "this MODEL is .*expected a Stable Diffusion 1.x or 2.x UNet.*Load an SD1.5 checkpoint"),
    ("positive and negative swapped", {"sampler.positive": ["transfer", 2], "sampler.negative": ["transfer", 1]},
     "positive and negative are swapped"),
    # latents
    ("SDXL's square latents at the sampler", {"sampler.latent_image": ["square", 0], "square": latents(128, 128)},
     r"latents of 12x16 .*the sampler runs 16x16 .*another shape; expected 12:16, larger or smaller: connect the LATENT"),
    ("an empty latent of another aspect", {"transfer.latent": ["square", 0], "square": latents(192, 128)},
     "another shape; expected 12:16.*set the empty latent to width 96 and height 128"),
    ("latents for another number of poses", {"pose.text": "THREE", "transfer.latent": ["few", 0],
                                             "few": latents(96, 128, 2)},
     "3 source and pose pairs are encoded, the latent input holds 2 latents; expected 3, a multiple"),
    # the photo
    ("a photo with nobody", {"photo.image": "mistakes_nobody.png"}, "260x300 pixels shows nobody.*expected a person"),
    ("a photo without a plain ground", {"photo.image": "mistakes_noise.png"},
     "knows drawn people alone.*nothing says where the person is.*source_mask.*or crop the photo to the shape 3:4"),
    ("two people in a photo", {"photo.image": "mistakes_two.png"}, "person 1 of 2, the largest; the part of"),
    ("two people in the photo's pose", {"photo.image": "mistakes_two.png", "transfer.source_pose": of("two")},
     "person 0 of 2, the largest; the part of"),
    ("the smaller of two people in a photo", {"photo.image": "mistakes_two.png", "transfer.source_person": 0},
     "person 0 of 2, as chosen; the part of"),
    ("a photo at a checkpoint of the demo", {"transfer.image": of("noise"), "transfer.fit": False, "paste": None,
                                             "save.images": ["decode", 0]},
     "knows drawn mannequins alone, and this looks like a photo.*load weights that were trained on them"),
    ("values of 0 to 255", {"transfer.image": of("bytes")}, "the IMAGE holds values from .*expected 0..1. Divide by 255"),
    ("no photo", {"transfer.image": None}, r"has no image; expected image \(a photo of the person\). Connect it"),
    # poses
    ("no pose", {"transfer.pose": None}, "Pose Transfer has no pose; .*expects POSE_KEYPOINT at the input pose. Connect"),
    ("a picture of the pose", {"transfer.pose": ["draw", 0], "draw": ("PGPISDrawPose", {
        "pose": ["pose", 0], "width": 0, "height": 0, "person": -1})}, r"IMAGE.*mismatch.*POSE_KEYPOINT"),
    ("a pose file that is gone", {"pose.file": "gone.json"}, "no pose file 'gone.json' in .*Upload it with the node's"),
    ("JSON of something else", {"pose.text": '{"last_node_id": 3, "nodes": []}'},
     "is JSON of something else, with 'last_node_id', 'nodes' and no 'people'; expected OpenPose or POSE_KEYPOINT JSON"),
    ("text that is no pose", {"pose.text": "a person who waves"}, "begins with 'a person who waves'; expected OpenPose"),
    ("a target pose with nobody", {"pose.text": "NOBODY"}, "No person in frame 1 of 1"),
    ("a target pose off its canvas", {"pose.text": "AWAY"}, "no joint lies on the canvas of 260x300"),
    ("a photo's pose with nobody", {"transfer.source_pose": of("nobody")}, "the pose of photo 1 shows nobody"),
    ("a photo's pose outside of it", {"transfer.source_pose": of("away")}, "the pose of the photo lies outside it: a joint"),
    ("the pose of another photo", {"transfer.source_pose": of("elsewhere")},
     "the pose of the photo is on a canvas of 500x400 pixels, the photo has 260x300; expected the pose found in this"),
    ("two photos and three poses", {"transfer.image": of("photos"), "pose.text": "THREE"},
     "2 photos and 3 target poses; expected equal numbers, or one of either. Repeat or drop"),
    # masks and frames
    ("a mask of another size", fitted(mask=of("small mask")), "the MASK is 64x64 pixels, the photo 260x300; expected"),
    ("a black mask of the person", fitted(mask=of("black mask")), "the MASK of the photo is black: it shows nobody"),
    ("a black mask for QEN", {"transfer.method": of("qen"), "transfer.fit": False, "transfer.mask": of("black mask"),
                              "paste": None, "save.images": ["decode", 0]}, "MASK 1 of 1 is all black, which masks nothing"),
    ("a mask that fit would leave behind", {"transfer.method": of("qen"), "transfer.mask": of("black mask")},
     "has a mask and fit is on; expected a mask with fit off"),
    ("the frame of another photo", {"paste.original": of("stranger")}, "the original is not the photo .*most of it looks"),
    ("an original of another size", {"paste.original": of("noise")},
     "the original is 96x128 pixels, the PGPIS_FRAME is of a photo of 260x300; expected the photo that Fit Person framed"),
    ("the photo pasted in place of the result", {"paste.image": ["photo", 0]},
     "the result is 260x300 pixels, the frame holds pictures of the shape 96x128; .*Connect the decoded result"),
    # files
    ("a checkpoint that is gone", from_file("gone"), "no file gone.safetensors in .*Put it into one of these folders"),
    ("a Git LFS pointer", from_file("pointer"), "it is a Git LFS pointer; fetch the file itself"),
    ("a web page saved as a checkpoint", from_file("page"), "it is a web page that was saved in place of the file"),
    ("half a download", from_file("half"), "half.safetensors .*is not a whole safetensors file: it is truncated"),
    ("the base as a checkpoint", from_file("demo_base"), "not a checkpoint of a method of this pack: .*it is a .base. file"),
    ("a preset without its files", {"transfer.method": ["file", 2], "file": (
        "PGPISLoadPreset", {"preset": "MCLD on SD1.5"})},
     "(?s)MCLD on SD1.5 lacks 3 of 3 things:.*7.3 GB: from https://huggingface.co/Lotior/mcld.*Put the files there"),
    ("a base that is gone", {"transfer.method": ["file", 2], "file": ("PGPISLoadPreset", {
        "preset": "CFLD on SD1.5", "base_model": "gone.safetensors"})},
     "(?s)no base model gone.safetensors in .*find one.*CFLD on SD1.5 lacks 2 of 2 things:.*Stable Diffusion 1.5 .v1"),
    ("a preset of another version", {"transfer.method": ["file", 2], "file": ("PGPISLoadPreset", {"preset": "CFLD 2"})},
     "no preset .CFLD 2.; expected one of Demo CFLD"),
    ("somebody's own pose", {"transfer.pose": ["own", 0], "own": ("PGPISPoseLibrary", {
        "name": "input/hers.json", "width": 96, "height": 128})},
     "no pose .input/hers.json. in the library, .*put the file"),
    # what MCLD needs
    ("MCLD without DENSEPOSE", MCLD, "has a pose but no densepose; .*expects DENSEPOSE at the input densepose. Connect"),
    ("MCLD without CLIP", DENSE, "has no clip_vision; .*expects CLIP ViT-L/14.*Connect Load CLIP Vision"),
    ("faces of another encoder", {**DENSE, "transfer.clip_vision": of("clip"), "transfer.face": of("faces")},
     r"the FACE_EMBEDS has the shape \(1, 128\); expected \(B, 512\): use the encoder"),
]


class AnyType(str):
    """Goes with every input of the host's."""

    def __ne__(self, other: object) -> bool:
        return False


@pytest.fixture(scope="module")
def given(host, demo, tiny, tiny_method):
    """What the graphs link to, by name, as outputs of a node that is there for these tests."""
    pack = {name: host.pack(f"pgpis_models.{name}") for name in ("mcld.model", "checkpoint", "surface.densepose")}
    types, loaders = host.pack("nodes.types"), host.pack("nodes.loaders")
    scene, other = photo(SIZE, (figure(3, (180, 135)), 20, 100)), photo(SIZE, (figure(5, (200, 150)), 30, 50))
    both = photo(SIZE, (figure(3, (140, 105)), 10, 150), (figure(5, (200, 150)), 105, 90))
    noise = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    for name, picture in (("", scene.picture), ("_two", both.picture), ("_noise", noise),
                          ("_nobody", np.broadcast_to(GROUND, (*SIZE, 3)))):
        Image.fromarray(np.ascontiguousarray(picture)).save(host.base / "input" / f"mistakes{name}.png")
    pose, away = to_pose_keypoint(other.people), to_pose_keypoint([other.people[0].shifted(2000, 0)])
    frames = {"": pose, "THREE": pose * 3, "AWAY": away, "NOBODY": [pose[0] | {"people": []}]}
    model, vae = loaders.LoadDemoBase.execute().result
    stranger = model.clone()
    stranger.model = SimpleNamespace(model_config=SimpleNamespace(unet_config={"transformer_depth": [0, 0, 2, 2, 10, 10]}))
    with torch.device("meta"):   # no weight of it is looked at
        module = pack["mcld.model"].MCLD()
    meta = pack["checkpoint"].Metadata("mcld", dataclasses.asdict(module.config), "sd15", 0, "none", "none")
    image = torch.from_numpy(scene.picture.copy()).float()[None] / 255
    two = [to_pose_keypoint(both.people)[0] | {"people": [one["people"][0] for one in to_pose_keypoint(both.people[::-1])]}]
    things = {"model": model, "vae": vae, "method": loaders.LoadCheckpoint.execute("cfld_tiny.safetensors").result[0],
              "qen": tiny_method("qen", "QEN", "qen_mistakes", 33, unet_heads=tiny.heads, prompt_width=tiny.context),
              "mcld": types.Method(pack["checkpoint"].Checkpoint(module, {}, meta), None, "mcld.safetensors"),
              "sdxl": stranger, "two": two, "nobody": frames["NOBODY"], "away": away,
              "elsewhere": [pose[0] | {"canvas_width": 500, "canvas_height": 400}],
              "photos": image.repeat(2, 1, 1, 1), "bytes": image * 255, "stranger": 1 - image,
              "noise": torch.rand(1, 128, 96, 3, generator=torch.Generator().manual_seed(0)),
              "small mask": torch.ones(1, 64, 64), "black mask": torch.zeros(1, *SIZE), "clip": object(),
              "iuv": (pack["surface.densepose"].IUV(scene.iuv.part, scene.iuv.u, scene.iuv.v),),
              "faces": types.FaceEmbeds(torch.zeros(1, 128))}

    class Given:
        RETURN_TYPES, FUNCTION, CATEGORY = (AnyType("*"),), "give", "tests"

        @classmethod
        def INPUT_TYPES(cls):
            return {"required": {"name": ("STRING", {})}}

        def give(self, name):
            return (things[name],)
    host.nodes.NODE_CLASS_MAPPINGS["Given"] = Given
    whole, names = demo.folder / "cfld_tiny.safetensors", ("cfld_other", "pointer", "page", "half")
    with safe_open(whole, "pt") as file:
        metadata = {key: value for key, value in file.metadata().items() if key != "pgpis.digest"}
    weights = {key: value + 0.01 * key.startswith("unet.") for key, value in load_file(whole).items()}
    save_file(weights, demo.folder / "cfld_other.safetensors", metadata)
    for name, content in (("pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"),
                          ("page", b"<!DOCTYPE html><html></html>"), ("half", whole.read_bytes()[:5000])):
        (demo.folder / f"{name}.safetensors").write_bytes(content)
    yield SimpleNamespace(things=things, texts={key: json.dumps(value) for key, value in frames.items()})
    del host.nodes.NODE_CLASS_MAPPINGS["Given"]
    for name in names:   # a preset of other tests would find them
        (demo.folder / f"{name}.safetensors").unlink()


def graph(given, change: dict) -> dict:
    """The graph with a change: "node" -> another node or none, "node.input" -> another value or none."""
    nodes = {name: (kind, dict(inputs)) for name, (kind, inputs) in GRAPH.items()}
    for place, value in change.items():
        node, _, name = place.partition(".")
        holder, key = (nodes[node][1], name) if name else (nodes, node)
        if value is None:
            holder.pop(key, None)
        else:
            holder[key] = value
    text = nodes["pose"][1]["text"]
    nodes["pose"][1]["text"] = given.texts.get(text, text)
    links = {value[0] for _, inputs in nodes.values() for value in inputs.values() if isinstance(value, list)}
    nodes |= {link: ("Given", {"name": link.removeprefix("given ")}) for link in links if link.startswith("given ")}
    return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}


def test_the_graph_without_a_mistake_runs_and_says_what_it_did(host, given, caplog):
    with caplog.at_level(logging.INFO):
        done = host.run(graph(given, {}))
    assert done.success, done.errors
    assert "the person; the part of" in caplog.text and "swapped" not in caplog.text and "looks like" not in caplog.text


def test_twenty_mistakes_are_in_the_list():
    assert len({name for name, _, _ in MISTAKES}) == len(MISTAKES) >= 20


@pytest.mark.parametrize(("change", "words"), [one[1:] for one in MISTAKES], ids=[one[0] for one in MISTAKES])
def test_a_mistake_gives_a_sentence(change, words, host, given, caplog):
    with caplog.at_level(logging.INFO):
        done = host.run(graph(given, change))
    if done.success:
        said = "\n".join(record.getMessage() for record in caplog.records if ".nodes." in record.name)
    else:
        failed = [error for error in done.errors if isinstance(error, dict) and "exception_type" in error]
        kinds = {error["exception_type"].rpartition(".")[2] for error in failed}
        assert kinds <= {"ValueError", "EmptyFrame", "FileNotFoundError"}, failed
        said = "\n".join(error["exception_message"] for error in failed) or str(done.errors)
    assert re.search(words, said), said
