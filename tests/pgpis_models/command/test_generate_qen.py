"""The command line with a QEN checkpoint: its own flags reach the control branch, and other methods refuse them."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from PIL import Image

from pgpis_models.checkpoint import save_checkpoint
from pgpis_models.pipeline import Generator
from pgpis_models.poses.formats import to_pose_keypoint
from pgpis_models.qen.config import CONFIGS, QENConfig
from pgpis_models.qen.model import QEN
from tests.helpers.tiny import SIZE, shaken
from tests.pgpis_models.command.test_generate import command, folder, opened, pose  # noqa: F401 - folder is a fixture
from training.engine.config import build

MODEL = {"image_size": [64, 64], "window": [4, 4], "swin_width": 8, "swin_depths": [1, 1, 1, 1], "swin_heads": [1, 1, 2, 2],
         "fusion_depth": 1, "unet_widths": [32, 32, 32, 32]}


@pytest.fixture(scope="module")
def qen(folder):  # noqa: F811
    torch.manual_seed(2)
    method = shaken(QEN(build(QENConfig, asdict(CONFIGS["demo"]) | MODEL, "model")))
    weights = {name: 0.2 * torch.randn(shape) for name, shape in method.unet_weight_shapes().items()}
    save_checkpoint(folder / "qen.safetensors", method, weights, base="demo", step=0, data="none", licence="test")
    half = np.zeros((32, 32), np.uint8)
    half[:, :16] = 255
    Image.fromarray(half).save(folder / "region.png")
    return folder


def made(qen, *flags):
    command(qen, "--checkpoint", str(qen / "qen.safetensors"), "--steps", "2", *flags)   # the last --checkpoint counts
    return opened(qen / "made.png").astype(int)


def test_strength_times_and_mask_reach_the_control_branch(qen):
    generator = Generator(*(qen / f"{name}.safetensors" for name in ("qen", "demo_base", "demo_vae")))
    source = generator.prepare(opened(qen / "person.png"))
    region = torch.zeros(1, 1, *SIZE)
    region[..., :SIZE[1] // 2] = 1
    pictures = []
    for flags, extras in (((), {}), (("--strength", "0.3"), {"strength": 0.3}),
                          (("--start", "0.2", "--end", "0.6"), {"start": 0.2, "end": 0.6}),
                          (("--mask", str(qen / "region.png")), {"mask": region})):
        [expected] = generator(source, [pose(1)], steps=2, **extras)
        expected = (expected.permute(1, 2, 0).numpy() * 255).round().astype(int)
        pictures.append(made(qen, *flags))
        assert np.abs(pictures[-1] - expected).max() <= 1
    for index, first in enumerate(pictures):
        assert all(np.abs(first - second).max() > 1 for second in pictures[index + 1:])


def test_a_pose_without_a_person_masks_nothing_and_says_so(qen, caplog, capsys):
    """Against a mask of everything; methods that need a person refuse the file."""
    nobody = {"people": [], "canvas_height": SIZE[0], "canvas_width": SIZE[1]}
    (qen / "nobody.json").write_text(json.dumps(nobody))
    everywhere = qen / "everywhere.png"
    Image.fromarray(np.full((8, 8), 255, np.uint8)).save(everywhere)
    empty = made(qen, "--pose", str(qen / "nobody.json"))
    assert "masks nothing" in caplog.text or "no person" in caplog.text.lower(), caplog.text
    assert np.array_equal(empty, made(qen, "--pose", str(qen / "nobody.json"), "--mask", str(everywhere)))
    assert not np.array_equal(empty, made(qen))
    with pytest.raises(SystemExit):
        command(qen, "--pose", str(qen / "nobody.json"))
    assert "No person in nobody.json" in capsys.readouterr().err


def test_the_flags_reach_every_frame_of_a_sequence(qen):
    """Against single calls, whose first noise is the one that all frames of a sequence start from."""
    (qen / "walk.json").write_text(json.dumps(to_pose_keypoint([pose(n) for n in range(3)])))
    generator = Generator(*(qen / f"{name}.safetensors" for name in ("qen", "demo_base", "demo_vae")))
    source = generator.prepare(opened(qen / "person.png"))
    region = torch.zeros(1, 1, *SIZE)
    region[..., :SIZE[1] // 2] = 1
    flags = ("--strength", "0.3", "--start", "0.2", "--end", "0.6", "--mask", str(qen / "region.png"))
    command(qen, "--checkpoint", str(qen / "qen.safetensors"), "--steps", "2", "--batch", "2", "--sequence", *flags,
            target="walk.json", out="film")
    for n in range(3):
        [plain], [expected] = (generator(source, [pose(n)], steps=2, **extras) for extras in (
            {}, {"strength": 0.3, "start": 0.2, "end": 0.6, "mask": region}))
        frame = opened(qen / "film" / f"{n:05d}.png").astype(int)
        plain, expected = ((x.permute(1, 2, 0).numpy() * 255).round().astype(int) for x in (plain, expected))
        assert np.abs(frame - expected).max() <= 1 < np.abs(frame - plain).max()


def test_other_methods_refuse_the_flags(qen, capsys):
    for flags, message in ((("--strength", "0.5", "--end", "0.5"), "--strength, --end came with a checkpoint of cfld; "
                            "expected one of qen, whose control branch they set. Leave them out"),
                           (("--mask", str(qen / "region.png")), "--mask came with a checkpoint of cfld; expected one of "
                            "qen, whose control branch they set, or --donor, whose appearance goes where --mask is white")):
        with pytest.raises(SystemExit):
            command(qen, *flags)
        assert message in capsys.readouterr().err
