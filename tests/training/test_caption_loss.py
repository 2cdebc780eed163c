"""The error of captions as the base's picture shows it: the matrix, what it says of real changes, the loss, and errors."""

import re

import numpy as np
import pytest
import torch

from pgpis_models.base import decode_latents, load_unet, load_vae
from pgpis_models.injections import Injections, everywhere, harmonise
from pgpis_models.pose import cfld_rasters
from tests import fpdm_tiny
from tests.steps import adam, step
from tests.tiny import MODEL, train_config, write_base
from training.base import CaptionedUNet, companion, raster_size
from training.caption_loss import SHRUNK, CaptionError, base_metric, open_caption_error, picture_metric
from training.cfld import CFLDTask
from training.config import DataConfig, MethodConfig
from training.data.bank import open_bank
from training.fpdm import FPDMTask

CPU = torch.device("cpu")


def test_the_metric_of_a_linear_picture_is_its_square():
    torch.manual_seed(0)
    matrix = torch.randn(30, 12, dtype=torch.float64) * torch.linspace(0.2, 3.0, 12, dtype=torch.float64)
    batches = ((torch.randn(100, 3, 4), lambda c: c.flatten(1) @ matrix.float().T) for _ in range(400))
    found = picture_metric(batches, torch.Generator().manual_seed(0)).double()
    wanted = matrix.T @ matrix
    own = torch.diag(wanted.diagonal())
    wanted = ((1 - SHRUNK) * wanted + SHRUNK * own) / own.diagonal().mean()
    assert torch.allclose(found, wanted, atol=0.03) and found.diagonal().mean() == pytest.approx(1)
    assert (found - torch.diag(found.diagonal())).abs().max() > 0.3   # what lies beside the diagonal matters


def settings_of(base, files, **method):
    return MethodConfig(base=str(base), vae=str(files.vae), **method)


def test_the_metric_foresees_what_changes_of_the_caption_do_to_pictures(base, files, tmp_path):
    """The same small change of everybody's caption, drawn before and after in float64, against e' G e. Scale and shrinking
    apart these are equal, up to the noise of the estimate; the pictures here are made by hand, not by its code."""
    data = DataConfig(size=(64, 64), views=2, cache=str(tmp_path), identities=1)
    bank = open_bank(data, held_out=8, start=1_300_000)
    metric = base_metric(settings_of(base, files), bank, CPU, count=1536)
    unshrunk = (metric - SHRUNK * torch.diag(metric.diagonal())) / (1 - SHRUNK)
    unet, sizes = load_unet(base)
    model = CaptionedUNet(unet, sizes, 0.0, 0.0, 1.0).eval()
    model.load_companion(companion(base))
    model, vae = model.double(), load_vae(files.vae).double()
    who, view = np.arange(16) // 2, np.arange(16) % 2
    maps = model.pose_encoder(cfld_rasters(bank.poses(who, view), raster_size(bank.size)).double())
    captions = torch.from_numpy(bank.caption[who]).double()
    noise = torch.randn(16, 4, 8, 8, generator=torch.Generator().manual_seed(5)).double()
    kept = sizes.schedule().alphas_cumprod[-1].double()

    def pictures(change):
        told = Injections(context=everywhere(captions + change), down_residuals=maps)
        with torch.no_grad():
            velocity = model.binding(noise, torch.full((16,), 999), harmonise([told], 16).stacked())
            return decode_latents(vae, kept.sqrt() * noise - (1 - kept).sqrt() * velocity)
    drawn = pictures(0.0)
    ratio = []
    for seed in range(8):
        change = torch.zeros(16, 64, dtype=torch.float64)
        change[2 * seed:2 * seed + 2] = 1e-3 * torch.randn(2, 64, generator=torch.Generator().manual_seed(seed)).double()
        flat = change.flatten()
        ratio.append(((pictures(change) - drawn).square().sum() / (flat @ unshrunk.double() @ flat)).item())
    assert max(ratio) / min(ratio) < 1.5, ratio


def test_the_loss_is_the_formula_written_out():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(1024, 40))
    metric, said, truth = root @ root.T, rng.normal(size=(3, 16, 64)), rng.normal(size=(3, 16, 64))
    weight = np.ones((16, 64))
    weight[:, 16:22] = weight[11, 28:35] = 4.0
    flat = (said - truth).reshape(3, -1)
    wanted = 0.3 * ((said - truth) ** 2 * weight).mean() + 0.7 * np.einsum("bi,ij,bj->b", flat, metric, flat).mean() / 1024
    tensors = [torch.from_numpy(value).float() for value in (metric, said, truth)]
    found = CaptionError(tensors[0], 0.7)(*tensors[1:])
    with torch.autocast("cpu", torch.bfloat16):   # as in training
        assert torch.allclose(CaptionError(tensors[0], 0.7)(*tensors[1:]), found)
    assert found.item() == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("kind", ["cfld", "fpdm"])
def test_encoders_learn_by_it(folder, files, base, kind, monkeypatch):
    monkeypatch.setattr("training.caption_loss.GRADIENTS", 128)
    torch.manual_seed(0)
    method = {"encoder_only": True, "caption_loss": 1.0, "caption_metric": 0.9, "base": str(base)}
    if kind == "fpdm":
        task = FPDMTask(fpdm_tiny.train_config(folder, files, "fpdm", method=method, fpdm={"flip": 0.0}), CPU)
    else:
        task = CFLDTask(train_config(folder, files, method=method | {"model": MODEL, "reconstruct": False}), CPU)
    assert task.model.caption_error.share == 0.9
    monkeypatch.setattr("training.caption_loss.base_metric", None)   # measured once, read from then on
    again = open_caption_error(task.config.method, task.config.data, CPU)
    assert torch.equal(again.metric, task.model.caption_error.metric)
    batch, optimiser = task.batch(np.random.default_rng(0), 4), adam(task)
    losses = [step(task, batch, optimiser)[0] for _ in range(12)]
    assert losses[-1] < 0.8 * losses[0]


def test_it_says_what_it_needs(base, files, tmp_path, capsys):
    data = DataConfig(size=(64, 64), views=2, cache=str(tmp_path), identities=1)
    for unasked in (MethodConfig(), settings_of(base, files, caption_metric=0.9)):   # the second has no caption loss
        assert open_caption_error(unasked, data, CPU).metric is None
    bare = settings_of(write_base(tmp_path / "bare.safetensors"), files, caption_loss=1.0, caption_metric=0.9)
    assert open_caption_error(bare, data, CPU).metric is None
    said = capsys.readouterr().out
    assert re.search(r"\(for method.caption_metric\) is .*bare_adapter.safetensors, which is not there", said)
    with pytest.raises(ValueError, match="method.base is .*which is not there"):
        open_caption_error(MethodConfig(base="nowhere", caption_loss=1.0, caption_metric=0.9), data, CPU)
    with pytest.raises(ValueError, match="method.vae is .*which is not there"):
        open_caption_error(MethodConfig(base=str(base), vae="nowhere", encoder_only=True, caption_metric=0.9), data, CPU)
    deaf = ((torch.randn(2, 3, 4), lambda c: 0 * c.flatten(1)) for _ in range(2))
    with pytest.raises(ValueError, match="captions change nothing in the base's pictures"):
        picture_metric(deaf, torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="no captions; expected at least one batch"):
        picture_metric([], torch.Generator().manual_seed(0))
