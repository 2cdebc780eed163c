"""A training on latents of half the size: its batches, its steps and its pictures, for every method."""

import numpy as np
import pytest
import torch

from pgpis_models.unet.autoencoder import encode_latents
from tests.helpers.configs import METHODS, config_of
from tests.helpers.steps import adam, step
from training.tasks.fpdm import FPDMTraining
from training.tasks.mcld import MCLDTraining
from training.train import task_class

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("small_grids")


def made(name, folder, files, fusion, halved=True):
    torch.manual_seed(0)
    config = config_of(name, folder, files, fusion, method={"halved": halved})
    return task_class(name)(config, CPU)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_learns_and_shows_on_latents_of_half_the_size(name, folder, files, fusion):
    task = made(name, folder, files, fusion)
    height, width = task.model.method.config.latent_size
    batch = task.batch(np.random.default_rng(0), 4)
    assert batch["target_latents"].shape[1:] == (4, height // 2, width // 2)
    seen = []
    task.model.unet.conv_in.register_forward_hook(lambda _module, _inputs, output: seen.append(tuple(output.shape[2:])))
    task.model.train()
    optimiser = adam(task, 3e-3)
    losses = [step(task, batch, optimiser)[0] for _ in range(8)]
    assert set(seen) == {(height // 2, width // 2)} and losses[-1] < losses[0]
    with torch.no_grad():
        picture = task.grid()
        task.config = config_of(name, folder, files, fusion)
        assert task.grid().shape == picture.shape   # shown at the size of the others


@pytest.mark.parametrize("name", METHODS)
def test_pictures_of_a_batch_are_halved_before_they_are_encoded(name, folder, files, fusion):
    """Photos bring pictures in place of latents: those of half the size, by the mean of four pixels."""
    task = made(name, folder, files, fusion)
    height, width = task.config.data.size
    picture = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    unit = picture.double() / 127.5 - 1
    small = unit.view(2, 3, height // 2, 2, width // 2, 2).mean((3, 5)).float()
    with torch.no_grad():
        expected = encode_latents(task.vae, small)
        if isinstance(task.model, MCLDTraining):
            found = task.model._encode(picture, halved=True)
        else:
            given = unit.float() if isinstance(task.model, FPDMTraining) else picture
            found = task.model.latents({"source_image": given, "target_image": given})[-2:]
    assert torch.allclose(found, expected, atol=1e-5)
