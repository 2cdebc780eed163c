"""The pictures of docs/limits.md are made by one command, and the page shows them all."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.tiny import write_files
from tools.picture_limits import PICTURES, main

PAGE = Path(__file__).resolve().parents[3] / "docs" / "limits.md"


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
