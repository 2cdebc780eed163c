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


@pytest.fixture(scope="session")
def nodes(host):
    return SimpleNamespace(**{name.split(".")[-1]: host.pack(f"nodes.{name}") for name in (
        "loaders", "densepose", "texture", "merging", "face", "multifocal", "binding.reference", "sampling",
        "binding.schedule", "types", "appearance")})


@pytest.fixture(scope="session")
def pack(host):
    """The pack's modules by what the tests call them; those of several files as one."""
    places = {"base": ["unet.base", "unet.autoencoder"], "checkpoint": ["checkpoint"], "densepose": ["surface.densepose"],
              "texture": ["surface.layout", "surface.texture"], "face": ["surface.face"],
              "mcld": ["mcld.model", "mcld.config"],
              "mcld_inputs": ["mcld.inputs", "mcld.pixels"],
              "mcld_parts": ["mcld.parts", "mcld.reference"], "schedule": ["noise.schedule"],
              "diffusers_binding": ["unet.diffusers_binding"], "injections": ["unet.injections"],
              "sampling": ["noise.samplers"], "pipeline": ["pipeline"]}
    return SimpleNamespace(**{name: SimpleNamespace(**{key: value for place in files for key, value in vars(
        host.pack(f"pgpis_models.{place}")).items()}) for name, files in places.items()})


@pytest.fixture(scope="session")
def files(demo, pack, tiny):
    """mcld_tiny: as the demo's, mcld_published: with CLIP and insightface outside and the authors' schedule."""
    preset = pack.mcld.CONFIGS["demo"]
    configs = {"mcld_tiny": dataclasses.replace(
        preset, unet_widths=tiny.widths, unet_heads=tiny.heads, prompt_width=tiny.context, image_size=SIZE,
        vision=dataclasses.replace(preset.vision, image=SIZE, token_width=tiny.context))}
    configs["mcld_published"] = dataclasses.replace(
        configs["mcld_tiny"], image_size=(128, 128), vision=None, image_tokens=1, face_width=512, schedule="authors")
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


@pytest.fixture(scope="session")
def base(nodes, demo):
    return SimpleNamespace(**dict(zip(("model", "vae"), nodes.loaders.LoadDemoBase.execute().result, strict=True)))


@pytest.fixture(scope="session")
def method(nodes, files):
    return nodes.loaders.LoadCheckpoint.execute("mcld_tiny.safetensors").result[0]


@pytest.fixture(scope="session")
def people(pack):
    """Drawn people with their true DensePose: image (1, H, W, 3) in 0..1 and a DENSEPOSE of one."""
    def person(number, view):
        identity = sample_identity(HELD_OUT + number)
        drawn = render(identity, sample_pose(pose_seed(HELD_OUT + number, view)), SIZE)
        return SimpleNamespace(image=torch.from_numpy(drawn.image).float()[None] / 255, raw=drawn.image,
                               densepose=(pack.densepose.IUV.from_picture(drawn.iuv()),), iuv=drawn.iuv())
    return [person(118, 1), person(118, 0), person(104, 5)]
