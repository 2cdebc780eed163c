"""Tiny MCLD checkpoints, drawn people and the nodes of the pack, for the tests of MCLD's nodes in the host."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from tests.host.mcld.helpers import SIZE, shaken
from training.world.bank import HELD_OUT, pose_seed
from training.world.drawing import render
from training.world.poses import sample_pose
from training.world.wardrobe import sample_identity


@pytest.fixture(scope="module")
def nodes(host):
    return SimpleNamespace(**{name: host.pack(f"nodes.{name}") for name in (
        "loaders", "densepose", "texture", "face", "multifocal", "reference", "sampling", "schedule", "types",
        "appearance")})


@pytest.fixture(scope="module")
def pack(host):
    return SimpleNamespace(**{name: host.pack(f"pgpis_models.{name}") for name in (
        "base", "checkpoint", "densepose", "texture", "face", "mcld", "mcld_inputs", "mcld_loss", "mcld_parts", "schedule",
        "diffusers_binding", "injections", "sampling", "pipeline")})


@pytest.fixture(scope="module")
def files(demo, pack, tiny):
    """mcld_tiny: as the demo's, mcld_published: with CLIP and insightface outside and the authors' schedule."""
    configs = {"mcld_tiny": dataclasses.replace(
        pack.mcld.CONFIGS["demo"], unet_widths=tiny.widths, unet_heads=tiny.heads, prompt_width=tiny.context)}
    configs["mcld_published"] = dataclasses.replace(
        configs["mcld_tiny"], image_size=(128, 128), vision_widths=(), image_tokens=1, face_width=512, schedule="authors")
    configs["mcld_smpl"] = dataclasses.replace(configs["mcld_published"], texture_layout="smpl")
    made = {}
    for name, config in configs.items():
        torch.manual_seed(7)
        method = pack.mcld.MCLD(config)
        method.start_reference({key: value.clone() for key, value in tiny.unet(5).state_dict().items()})
        weights = dict(tiny.unet(6).state_dict())
        pack.checkpoint.save_checkpoint(demo.folder / f"{name}.safetensors", shaken(method), weights, base="demo", step=0,
                                        data="none", licence="none")
        made[name] = SimpleNamespace(method=method.eval(), weights=weights, config=config)
    return made


@pytest.fixture(scope="module")
def base(nodes, demo):
    return SimpleNamespace(**dict(zip(("model", "vae"), nodes.loaders.LoadDemoBase.execute().result, strict=True)))


@pytest.fixture(scope="module")
def method(nodes, files):
    return nodes.loaders.LoadCheckpoint.execute("mcld_tiny.safetensors").result[0]


@pytest.fixture(scope="module")
def people(pack):
    """Drawn people with their true DensePose: image (1, H, W, 3) in 0..1 and a DENSEPOSE of one."""
    def person(number, view):
        identity = sample_identity(HELD_OUT + number)
        drawn = render(identity, sample_pose(pose_seed(HELD_OUT + number, view)), SIZE)
        return SimpleNamespace(image=torch.from_numpy(drawn.image).float()[None] / 255, raw=drawn.image,
                               densepose=(pack.densepose.IUV.from_picture(drawn.iuv()),), iuv=drawn.iuv())
    return [person(118, 1), person(118, 0), person(104, 5)]
