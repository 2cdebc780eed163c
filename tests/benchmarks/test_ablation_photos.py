"""The ablations on photos, at tiny sizes: rows are trained by the config's settings, the test split is made and measured."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from pgpis_models.cfld.config import CONFIGS
from pgpis_models.checkpoint import load_checkpoint
from pgpis_models.metrics import papers_resize_quantise, psnr
from tests.benchmarks.test_ablation import ablation, folder, page, variants  # noqa: F401 - a fixture
from tests.helpers.small import shrink
from training.evaluation.protocols import by_pillow

photos = importlib.import_module("ablation_parts.photos")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two photos of each split, with poses and one pair, in the published layout."""
    found, random = tmp_path_factory.mktemp("fashion"), np.random.default_rng(0)
    for split in ("train", "test"):
        (found / f"{split}_highres").mkdir()
        rows = ["name:keypoints_y:keypoints_x"]
        for name in "ab":
            Image.fromarray(random.integers(0, 256, (110, 75, 3), dtype=np.uint8)).save(
                found / f"{split}_highres" / f"{name}.png")
            rows.append(f"{name}.png:{random.integers(20, 240, 18).tolist()}:{random.integers(10, 160, 18).tolist()}")
        (found / f"fasion-resize-annotation-{split}.csv").write_text("\n".join(rows))
        (found / f"fasion-resize-pairs-{split}.csv").write_text("from,to\na.png,b.png\n")
    return found


class Described:
    """In CLIP's place."""

    def __init__(self, *_):
        pass

    def __call__(self, pictures):
        return torch.from_numpy(pictures).float().mean((1, 2)).repeat(1, 256) / 255


@pytest.mark.parametrize(("method", "names"), [("cfld", "B1,B2"), ("fpdm", "full"), ("qen", "B2")])
def test_rows_are_trained_on_photos_and_stand_with_the_papers_measures(folder, root, tmp_path, method, names, monkeypatch,  # noqa: F811
                                                                       capsys):
    shrink(monkeypatch)
    monkeypatch.setattr(photos, "ClipEncoder", Described)
    config = yaml.safe_load(page(folder, method).read_text())
    config["data"] |= {"kind": "deepfashion", "root": str(root)}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config | {"images": 4, "sample_every": 0}))
    arguments = [method, "--config", str(tmp_path / "config.yaml"), "--steps", "2", "--out", str(tmp_path / "out"), "--rows",
                 names, "--clip", str(tmp_path)]
    table = ablation.main(arguments)
    rows = {name: ablation.ROWS[method][name] for name in names.split(",")}
    assert set(table) == {name for row, one in rows.items() for name in (row, *(f"{row}, {way}" for way in one.also))}
    # each is its own; two steps teach FPDM too little of its embedding for 8 bits to show
    assert len({one["psnr"] for [one] in table.values()}) == (2 if method == "fpdm" else len(table))
    target = by_pillow(root / "test_highres" / "b.png", (256, 176))
    for name, [found] in table.items():
        row, _, way = name.partition(", ")
        [result] = (tmp_path / "out").glob(f"{row}-0-*.json")
        made = result.with_suffix("") if not way else result.with_name(f"{result.stem} {way}")
        picture = torch.from_numpy(np.array(Image.open(made / "generated" / "a_to_b.png"))).permute(2, 0, 1)[None] / 255
        if method == "cfld":   # as its protocol reads them
            assert found["psnr"] == pytest.approx(float(psnr(papers_resize_quantise(picture, (256, 176)), target)), abs=1e-4)
        assert 0 < found["ssim"] < 1 and all((made / kind / "a_to_b.png").is_file() for kind in ("sources", "targets"))
        [weights] = (tmp_path / "out").glob(f"{row}-0-*.safetensors")
        if rows[row].variant:
            with pytest.raises(ValueError, match=f"unknown method 'cfld_{row}'"):
                load_checkpoint(weights)
        else:
            assert load_checkpoint(weights).meta.step == 4
    said = capsys.readouterr().out
    assert f"4 images each, the test split of {root}" in said and "paper |" in said
    monkeypatch.setattr(photos, "run", None)
    assert ablation.main(arguments) == table   # nothing is trained twice
    # in other steps and without CLIP it is measured, not trained, once more
    monkeypatch.setattr(photos, "run", lambda *_: pytest.fail("trained again"))
    first = names.split(",")[0]
    assert ablation.main([*arguments[:3], "--steps", "1", *arguments[5:7], "--rows", first])[first] != table[first]


def test_what_photos_need_is_said_before_a_row_is_trained(folder, root, tmp_path, capsys):  # noqa: F811
    config = yaml.safe_load(page(folder, "cfld").read_text())
    config["data"] |= {"kind": "deepfashion", "root": str(root)}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    for arguments, message in ((["cfld"], "B2 reads photos with CLIP, and --clip is ''"),
                               (["fpdm_fusion"], "makes no pictures, and is measured on drawn people alone")):
        with pytest.raises(SystemExit):
            ablation.main([*arguments, "--config", str(path), "--out", str(tmp_path / "out")])
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["FeaturesAsKeys", "MapAsPrompt", "ClipAsPrompt"])
def test_cflds_baselines_fit_stable_diffusion_at_the_published_size(kind):
    """Shapes alone: nothing is computed."""
    with torch.device("meta"):
        method = getattr(variants, kind)(CONFIGS["full"]).to("meta")   # buffers too
        if kind == "ClipAsPrompt":
            method.describe = lambda source: torch.zeros(len(source), method.described_width)
        source, pose = torch.zeros(1, 3, 256, 256), torch.zeros(1, 21, *method.config.pose_size)
        made = method.training_injections(source, pose, pose, torch.ones(2))
    assert made.context["down"].shape[-1] == 768
    keys = [tokens.shape[1:] for site, tokens in made.context.items() if site.startswith("up.")]
    # three sites at each of 64, 32 and 16 latent pixels, as wide as the prompt
    assert keys == ([(side * side, 768) for side in (64, 32, 16) for _ in range(3)] if kind == "FeaturesAsKeys" else [])
    assert [bias.shape[1:] for bias in made.query_bias.values()] == (
        [(side * side, width) for side, width in ((64, 320), (32, 640), (16, 1280)) for _ in range(3)]
        if kind == "MapAsPrompt" else [])
