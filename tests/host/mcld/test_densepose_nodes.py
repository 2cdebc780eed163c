"""Read IUV and Estimate DensePose."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.host.mcld.helpers import SIZE


@pytest.mark.parametrize("order", ["v,u,part", "part,u,v"])
def test_iuv_pictures_are_read_and_written(order, nodes, people):
    person = people[0]
    picture = person.iuv if order == "part,u,v" else person.iuv[..., ::-1].copy()
    image = torch.from_numpy(picture).float()[None] / 255
    densepose, written, mask, parts = nodes.densepose.ReadIUV.execute(image, order, "head, 2").result
    assert np.array_equal(densepose[0].to_picture(), person.iuv)
    assert np.array_equal((written[0] * 255).round().byte().numpy(), person.iuv[..., ::-1])
    assert np.array_equal(mask[0].bool().numpy(), np.isin(person.iuv[..., 0], (2, 23, 24)))
    assert parts.shape == (24, *SIZE)
    assert np.array_equal(parts.bool().numpy(), person.iuv[..., 0] == np.arange(1, 25)[:, None, None])


class TwoPeople(torch.nn.Module):
    """A TorchScript stand-in of the public models: a small person listed first, a large one second."""

    def forward(self, image: torch.Tensor):
        boxes = torch.tensor([[2.0, 2.0, 22.0, 32.0], [40.0, 10.0, 90.0, 120.0]])
        coarse = torch.zeros(2, 2, 8, 8)
        coarse[:, 1] = 1.0
        fine = torch.zeros(2, 25, 8, 8)
        fine[0, 3] = 1.0
        fine[1, 24] = 1.0
        return boxes, coarse, fine, torch.full((2, 25, 8, 8), 0.25), torch.full((2, 25, 8, 8), 0.75)


class Nobody(torch.nn.Module):
    def forward(self, image: torch.Tensor):
        empty = torch.zeros(0, 25, 8, 8)
        return torch.zeros(0, 4), torch.zeros(0, 2, 8, 8), empty, empty, empty


@pytest.fixture(scope="module")
def detectors(host):
    folder = host.base / "models" / "pgpis" / "densepose"
    folder.mkdir(exist_ok=True)
    for name, module in (("two", TwoPeople()), ("nobody", Nobody())):
        torch.jit.script(module).save(str(folder / f"{name}.torchscript"))


def test_the_largest_person_or_an_index_is_estimated(nodes, detectors, people):
    estimate = nodes.densepose.EstimateDensePose.execute
    images = torch.cat([people[0].image, people[1].image])
    densepose, picture, mask, _ = estimate(images, "two.torchscript", -1, "").result
    assert len(densepose) == 2 and densepose[0].part[60, 60] == 24 and not densepose[0].part[:, :40].any()
    assert picture.shape == (2, *SIZE, 3) and mask[0, 60, 60] == 1 and mask[0].sum() == 50 * 110
    [first] = estimate(people[0].image, "two.torchscript", 0, "body").result[0]
    assert first.part[10, 10] == 3 and not first.part[:, 30:].any()
    with pytest.raises(ValueError, match="picture 1 of 1: person is 2, but the photo shows 2"):
        estimate(people[0].image, "two.torchscript", 2, "body")
    with pytest.raises(ValueError, match="picture 1 of 1: nobody found.*Crop"):
        estimate(people[0].image, "nobody.torchscript", -1, "body")
    with pytest.raises(ValueError, match="part 'elbow' is not known"):   # before the work, with a file that is not there
        estimate(people[0].image, "no.torchscript", -1, "head, elbow")
    assert estimate(people[0].image, "two.torchscript", -1, "Head, 3").result[2].any()
    with pytest.raises(FileNotFoundError, match="no file .*r50_fpn_dl.torchscript in .*densepose.*Download"):
        estimate(people[0].image, "densepose_r50_fpn_dl.torchscript", -1, "body")


def test_models_that_controlnet_aux_downloads_while_the_host_runs_are_found(nodes, host):
    import folder_paths
    pack = host.base / "custom_nodes" / "comfyui_controlnet_aux"
    pack.mkdir()
    nodes.densepose.register_folder()   # as at the start, when there is no model yet
    folder = pack.joinpath("ckpts", "LayerNorm", "DensePose-TorchScript-with-hint-image")
    folder.mkdir(parents=True)
    torch.jit.script(TwoPeople()).save(str(folder / "densepose_r101_fpn_dl.torchscript"))
    assert "densepose_r101_fpn_dl.torchscript" in folder_paths.get_filename_list(nodes.densepose.FOLDER)
    assert folder_paths.get_full_path(nodes.densepose.FOLDER, "densepose_r101_fpn_dl.torchscript").startswith(str(folder))


def test_iuv_pictures_that_say_nothing_are_refused_with_their_number(nodes, people):
    read = nodes.densepose.ReadIUV.execute
    picture = torch.from_numpy(people[0].iuv[..., ::-1].copy()).float()[None] / 255
    with pytest.raises(ValueError, match="picture 2 of 2: no pixel belongs to a body part"):
        read(torch.cat([picture, torch.zeros_like(picture)]), "v,u,part", "body")
    with pytest.raises(ValueError, match="picture 2 of 2: .*reaches .*other channel order"):
        read(torch.cat([picture, picture.flip(-1)]), "v,u,part", "body")
    with pytest.raises(ValueError, match="grey, so it holds part numbers at most"):
        read(picture[..., :1], "v,u,part", "body")
    clear = torch.cat([picture, (picture[..., 2:] > 0).float()], -1)
    clear[..., :3][clear[..., 3] == 0] = 1.0   # what a transparent background hides
    assert np.array_equal(read(clear, "v,u,part", "body").result[0][0].to_picture(), people[0].iuv)
