"""Two people mixed, for all four methods: the ends are the unmixed ones, and between them each step goes on."""

from __future__ import annotations

import math

import pytest
import torch

from pgpis_models.cfld.model import CFLD
from pgpis_models.cfld.model import Encoded as CFLDEncoded
from pgpis_models.fpdm.model import FPDM
from pgpis_models.fpdm.model import Encoded as FPDMEncoded
from pgpis_models.mcld.model import MCLD
from pgpis_models.mcld.model import Encoded as MCLDEncoded
from pgpis_models.parts.mixing import Mixing
from pgpis_models.qen.model import QEN
from pgpis_models.qen.model import Encoded as QENEncoded
from pgpis_models.unet.sites import SITES
from tests.helpers.fpdm_tiny import fpdm_config

STEPS = 9
POSES = torch.randn(2, 4, 3, 2, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def fpdm():
    torch.manual_seed(4)
    return FPDM(fpdm_config()).requires_grad_(False).eval()


def numbers(seed: int):
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(shape, generator=generator)


def encoded(kind: str, seed: int, fpdm: FPDM, poses: torch.Tensor = POSES[:1]):
    """A person of this seed in `poses`; nothing of a person depends on them."""
    some, sites = numbers(seed), list(SITES)[:2]
    if kind == "cfld":
        return CFLDEncoded(some(1, 5, 6), {site: some(1, 8, 3) for site in sites}, torch.zeros(1, 5, 6), (poses,) * 3)
    if kind == "qen":
        return QENEncoded(some(1, 5, 6), torch.zeros(1, 5, 6), {"stem": poses}, torch.ones(len(poses), 1, 8, 8))
    if kind == "mcld":
        return MCLDEncoded(some(1, 1, 6), some(1, 1, 6), some(1, 16, 6), {site: some(1, 8, 3) for site in sites}, pose=poses)
    fusion = torch.nn.functional.normalize(some(1, fpdm.config.fusion.embed), dim=-1).expand(len(poses), -1)
    return FPDMEncoded(some(1, 5, 6), poses, fusion, fpdm.class_mlp(fusion), fpdm.class_mlp(torch.zeros_like(fusion[:1])))


def parts(kind: str, one) -> list[torch.Tensor]:
    """What differs from person to person."""
    return {"cfld": lambda: [one.prompt, *one.query_bias.values()], "qen": lambda: [one.tokens],
            "mcld": lambda: [one.image, one.texture, one.face, *one.reference.values()],
            "fpdm": lambda: [one.tokens, one.fusion, one.added]}[kind]()


def blended(kind: str, first, second, weights, fpdm: FPDM):
    method = {"cfld": CFLD, "qen": QEN, "mcld": MCLD, "fpdm": fpdm}[kind]
    return method.blended(first, second, torch.as_tensor(weights))


@pytest.mark.parametrize("kind", ["cfld", "qen", "mcld", "fpdm"])
def test_a_row_starts_and_ends_unmixed_and_each_step_goes_on(kind, fpdm):
    first, second = encoded(kind, 1, fpdm), encoded(kind, 2, fpdm)
    row = parts(kind, blended(kind, first, second, torch.linspace(0, 1, STEPS), fpdm))
    for value, start, end in zip(row, parts(kind, first), parts(kind, second), strict=True):
        assert len(value) == STEPS
        assert torch.allclose(value[0], start[0], atol=1e-5) and torch.allclose(value[-1], end[0], atol=1e-5)
    straight = slice(-1) if kind == "fpdm" else slice(None)   # its last is what a network makes of the one before
    for value, start, end in list(zip(row, parts(kind, first), parts(kind, second), strict=True))[straight]:
        away, left = ((value - one).flatten(1).norm(dim=1) for one in (start, end))
        assert (away.diff() > 0).all() and (left.diff() < 0).all()
    alone = parts(kind, blended(kind, first, second, [0.375], fpdm))
    assert all(torch.allclose(one[0], value[3], atol=1e-6) for one, value in zip(alone, row, strict=True))


@pytest.mark.parametrize("kind", ["cfld", "qen", "mcld", "fpdm"])
def test_rows_of_several_poses_stand_together(kind, fpdm):
    first, second = encoded(kind, 1, fpdm, POSES), encoded(kind, 2, fpdm)
    mixed = blended(kind, first, second, [0.0, 0.5, 1.0], fpdm)
    pose = {"cfld": lambda: mixed.pose_maps[2], "qen": lambda: mixed.pose["stem"], "mcld": lambda: mixed.pose,
            "fpdm": lambda: mixed.pose_map}[kind]()
    assert torch.equal(pose, POSES[[0, 0, 0, 1, 1, 1]])
    for value, start, end in zip(parts(kind, mixed), parts(kind, first), parts(kind, second), strict=True):
        assert len(value) == 6
        assert torch.allclose(value[[0, 3]], start[:1].expand_as(value[:2]), atol=1e-5)
        assert torch.allclose(value[[2, 5]], end[:1].expand_as(value[:2]), atol=1e-5)


def test_on_the_circle_equal_steps_are_equal_angles():
    a, b = torch.eye(3)[:1], torch.tensor([[math.cos(2.4), math.sin(2.4), 0.0]])
    row = Mixing.of(torch.linspace(0, 1, 5), a, b, 1).spherical(a, b)
    angle = torch.atan2(row[:, 1], row[:, 0])
    assert torch.allclose(angle, torch.linspace(0, 2.4, 5), atol=1e-6) and torch.allclose(row.norm(dim=1), torch.ones(5))
    same = Mixing.of(torch.linspace(0, 1, 5), a, a, 1).spherical(a, a)
    assert torch.equal(same, a.expand(5, -1))


def test_what_does_not_go_together_is_said(fpdm):
    with pytest.raises(ValueError, match="cannot blend appearances of 2 and 3 sources for 1 poses; expected equal numbers"):
        Mixing.of(torch.ones(1), torch.zeros(2, 4), torch.zeros(3, 4), 1)
    with pytest.raises(ValueError, match=r"the weights are \[1.5\]; expected one or more of 0 to 1"):
        Mixing.of(torch.tensor([1.5]), torch.zeros(1, 4), torch.zeros(1, 4), 1)
    with pytest.raises(ValueError, match="expected two appearances of one checkpoint"):
        Mixing.of(torch.ones(1), torch.zeros(1, 4), torch.zeros(1, 5), 1).linear(torch.zeros(1, 4), torch.zeros(1, 5))
    first, second = encoded("mcld", 1, fpdm), encoded("mcld", 2, fpdm)
    bare = MCLDEncoded(second.image, second.texture, second.face, {}, pose=second.pose)
    with pytest.raises(ValueError, match="a texture, face_weight 0.5 and no texture, face_weight 0.5; expected both alike"):
        MCLD.blended(first, bare, torch.ones(1))
