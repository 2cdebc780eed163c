"""Several photos of one person in CFLD, FPDM and QEN: what attention reads, and what is averaged by what a photo shows."""

from dataclasses import asdict, replace

import pytest
import torch
import torch.nn.functional as F

from pgpis_models.cfld import config as cfld
from pgpis_models.cfld.model import CFLD
from pgpis_models.parts.joining import SLOTS, mean_direction, one_row, weighted_row
from pgpis_models.qen import config as qen
from pgpis_models.qen.model import QEN
from pgpis_models.settings import build
from pgpis_models.unet.attention import attend
from pgpis_models.unet.injections import harmonise

SMALL = {"image_size": [64, 64], "window": [4, 4], "swin_width": 8, "swin_depths": [1, 1, 1, 1], "swin_heads": [1, 1, 2, 2],
         "unet_widths": [32, 32, 32]}
OF = {"cfld": (CFLD, cfld.CFLDConfig, cfld.CONFIGS, {"appearance_widths": [8, 8, 8], "appearance_heads": [1, 1, 1],
                                                     "decoder_depth": 1}),
      "qen": (QEN, qen.QENConfig, qen.CONFIGS, {"fusion_depth": 1, "unet_widths": [32, 32, 32, 32], "unet_heads": 2})}
WEIGHTS = torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.0, 1.0]])   # of two photos, for three poses


@pytest.fixture(scope="module", params=list(OF))
def made(request):
    """The method, and what it knows of two photos apart."""
    kind, config, presets, sizes = OF[request.param]
    torch.manual_seed(0)
    method = kind(build(config, asdict(presets["demo"]) | SMALL | sizes, "model")).eval().requires_grad_(False)
    for value in method.parameters():
        value += 0.05 * torch.randn_like(value)
    return method, method.encode_appearance(torch.rand(2, 3, 64, 64) * 2 - 1)


def rows_of(method, appearance):
    """Rows of the last guidance term, for three poses."""
    torch.manual_seed(1)
    pose = torch.rand(3, method.config.pose_channels, *method.config.pose_size)
    join = method.with_pose if isinstance(method, QEN) else lambda one, raster: one.with_pose(method.encode_pose(raster))
    encoded = join(appearance, pose)
    return harmonise([term.injections for term in method.guidance(encoded).terms], 3).terms[-1]


def photos(appearance, numbers):
    """The photos of these numbers; what stands for nobody is one for all."""
    def of(name, value):
        if value is None or name.startswith("null"):
            return value
        return {site: bias[numbers] for site, bias in value.items()} if isinstance(value, dict) else value[numbers]
    return replace(appearance, **{name: of(name, value) for name, value in vars(appearance).items()})


def test_a_photo_that_comes_twice_changes_nothing(made):
    method, both = made
    one, twice = photos(both, [0]), photos(both, [0, 0])
    once, again = rows_of(method, one), rows_of(method, method.joined(twice, torch.full((1, 2), 0.5)))
    query = torch.randn(3, 6, once["context.mid"].shape[2])
    read = [attend(query, rows["context.mid"], rows["context.mid"], 1, rows.get("context_count.mid"))
            for rows in (once, again)]
    assert again["context.mid"].shape[1] == 2 * once["context.mid"].shape[1] and (read[0] - read[1]).abs().max() < 1e-5
    for name, value in once.items():
        if not name.startswith("context"):
            assert (again[name] - value).abs().max() < 1e-5, name


def test_what_is_averaged_goes_by_the_weight_of_each_photo_for_each_pose(made):
    method, both = made
    rows = rows_of(method, method.joined(both, WEIGHTS))
    apart = {"control.tokens": both.tokens} if isinstance(method, QEN) else {
        f"query_bias.{site}": bias for site, bias in both.query_bias.items()}
    for name, value in apart.items():
        expected = torch.stack([value.mean(0), value[0], value[1]])
        assert (value[0] - value[1]).abs().max() > 1e-3 and (rows[name] - expected).abs().max() < 1e-5, name


def test_directions_are_averaged_on_the_sphere():
    two = F.normalize(torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]]), dim=-1)
    assert torch.allclose(mean_direction(two, torch.tensor([[0.5, 0.5]])), torch.tensor([[0.5 ** 0.5, 0.5 ** 0.5, 0.0]]))
    assert torch.allclose(mean_direction(two, torch.tensor([[1.0, 0.0]])), two[:, 0])
    assert torch.equal(one_row(torch.arange(6.0).view(2, 3, 1)), torch.arange(6.0).view(1, 6, 1))


def test_attention_gives_each_photo_its_weight():
    """Against the softmax written out, whose weights are those of the photos times what it gives each token."""
    draws = torch.Generator().manual_seed(3)
    query, tokens = torch.randn(1, 5, 8, generator=draws), torch.randn(3, 4, 8, generator=draws)
    weights = torch.tensor([[0.25, 0.5, 0.25], [0.0, 1.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    rows = weighted_row(tokens, weights)
    assert rows.shape == (3, SLOTS * 3 * 4, 8)
    for row, share in zip(rows, weights, strict=True):
        logits = torch.einsum("qc,ntc->qnt", query[0], tokens).double() / 8 ** 0.5
        weight = logits.exp() * share[:, None]
        expected = torch.einsum("qnt,ntc->qc", weight / weight.sum((1, 2), keepdim=True), tokens.double())
        assert (attend(query, row[None], row[None], 1)[0] - expected).abs().max() < 1e-5
    uneven = weighted_row(torch.arange(2.0)[:, None, None], torch.tensor([[0.3, 0.7]]))   # to an eighth
    assert uneven.flatten().tolist() == [0, 1, 1, 1]
    for one, photos_of in ((tokens[:1], 1), (tokens, 3)):   # nothing to weigh: as long as without weights
        assert torch.equal(weighted_row(one, torch.full((1, photos_of), 1 / photos_of)), one_row(one))
