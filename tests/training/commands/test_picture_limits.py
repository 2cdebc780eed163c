"""The pictures of docs/limits.md are made by one command, and the page shows them all."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pgpis_models.poses.drawing import draw_openpose
from tests.helpers.tiny import write_files
from tools.picture_limits import LIMBS, PICTURES, SIZE, Maker, main

PAGE = Path(__file__).resolve().parents[3] / "docs" / "limits.md"
# who makes each: by MCLD once unless told here
BY = {"far_view": ["mcld", "qen"], "in_the_wild": ["qen"] * 2, "hands": ["qen"], "flicker": ["qen"] * 4}


class Skeletons(Maker):
    """In the place of pictures; notes what each is asked for."""

    asked: list = []

    def __call__(self, method, source, poses, densepose=(), source_densepose=(), **_options):
        assert source.shape == (*SIZE, 3) and all(iuv.size == SIZE for iuv in (*densepose, *source_densepose))
        assert bool(densepose) == bool(source_densepose) == (method == "mcld")
        self.asked.append((method, *densepose))
        return [draw_openpose(pose, SIZE) for pose in poses]


@pytest.mark.parametrize("name", PICTURES)
def test_each_limit_has_its_pictures_by_the_methods_that_it_is_of(name, tmp_path, monkeypatch):
    monkeypatch.setattr("tools.picture_limits.Maker", Skeletons)
    monkeypatch.setattr(Skeletons, "asked", [])
    main([name, "--out", str(tmp_path)])
    strip = np.asarray(Image.open(tmp_path / f"{name}.webp"))
    assert strip.shape[0] > SIZE[0] and 4 * SIZE[1] < strip.shape[1] < 5 * SIZE[1]
    assert all(panel.std() > 5 for panel in np.array_split(strip, 4, axis=1))
    assert sorted(method for method, *_ in Skeletons.asked) == BY.get(name, ["mcld"])
    if name == "wrong_pose":
        assert not np.isin(Skeletons.asked[0][1].part, LIMBS["left arm"]).any()


def test_a_strip_is_made_and_the_page_shows_each(tmp_path, monkeypatch, capsys):
    write_files(tmp_path).cfld.rename(tmp_path / "demo_qen.safetensors")   # what it is, the file says
    monkeypatch.setattr("tools.picture_limits.STEPS", 2)
    main(["hands", "--models", str(tmp_path), "--out", str(tmp_path / "out")])
    [path] = (tmp_path / "out").iterdir()
    strip = np.asarray(Image.open(path))
    assert path.name == "hands.webp" and strip.shape[1] > 4 * 192 and strip.std() > 10
    text = PAGE.read_text(encoding="utf-8")
    shown = set(re.findall(r"pictures/limits/(\w+)\.webp", text))
    assert shown == set(PICTURES)
    assert all((PAGE.parent / "pictures" / "limits" / f"{name}.webp").is_file() for name in shown)
    with pytest.raises(SystemExit):
        main(["feet"])
    assert "feet: expected names of wrong_pose" in capsys.readouterr().err
