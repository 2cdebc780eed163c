"""The autoencoder of the drawn world: a fresh one starts as a correct colour picture."""

import pytest
import torch

from pgpis_models.unet.autoencoder import encode_latents, tiny
from training.engine.config import DataConfig, TrainConfig
from training.world.autoencoder import AutoencoderTask, colour_identity


@pytest.fixture(autouse=True)
def without_gradients():
    torch.manual_seed(0)
    with torch.no_grad():
        yield


def test_a_fresh_autoencoder_of_colour_identity_gives_the_mean_colour_back():
    """The latent is 3 (c - 0.75), which the decoder's clamp 3 tanh(z / 3) bends: a picture of one colour c comes back as
    0.75 + tanh(c - 0.75) in every pixel, near c for light colours, and never grey."""
    model = colour_identity(tiny(8)).eval()
    colours = torch.tensor([[0.75, 0.75, 0.75], [1.0, 0.6, 0.5], [0.9, 0.3, 0.7], [0.0, 1.0, 0.4]])
    pictures = colours[:, :, None, None].expand(-1, -1, 32, 48)
    latents = encode_latents(model, pictures * 2 - 1)
    assert torch.allclose(latents[:, :3], (3 * (colours - 0.75))[:, :, None, None].expand(-1, -1, 4, 6), atol=1e-5)
    decoded = model.decode(latents).sample / 2 + 0.5
    assert torch.allclose(decoded, 0.75 + torch.tanh(pictures - 0.75), atol=1e-5)
    assert (decoded - pictures).abs().max() < 0.12 and (decoded[1] - pictures[1]).abs().max() < 0.01


def test_colour_identity_shows_each_cell_its_own_mean():
    model = colour_identity(tiny(8)).eval()
    cells = torch.rand(1, 3, 2, 3) * 0.5 + 0.5
    fine = cells.repeat_interleave(8, 2).repeat_interleave(8, 3)
    fine = fine + 0.05 * (torch.arange(24) % 2 * 2 - 1)   # stripes of one pixel average out
    latents = encode_latents(model, fine * 2 - 1)
    assert torch.allclose(latents[:, :3], 3 * (cells - 0.75), atol=1e-5)


def test_sizes_that_no_autoencoder_file_can_have_are_refused_before_training():
    data = DataConfig(size=(64, 48))
    for settings, message in (({"width": 65}, "world.width is 65; expected 4 to 64, the host's"),
                              ({"crop": 56}, "world.crop is 56; expected a multiple of 8 up to 48")):
        with pytest.raises(ValueError, match=message):
            AutoencoderTask(TrainConfig(data=data, world=settings), torch.device("cpu"))
