"""MCLD's conditions by one command, as it stands on the page; and the paper's face detector in front of it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.documented import block, here
from tests.helpers.documented import run as command
from training import prepare_mcld
from training.data.face_boxes import single_shot

[PREPARE] = [line for line in block("papers.md", "prepare_mcld.py") if "prepare_mcld.py" in line]
SIZE = (60, 40)


class Standing(torch.nn.Module):
    """Stands for the public DensePose models: a torso in the middle of any photo that is not black."""

    def forward(self, image: torch.Tensor):
        people = 1 if bool(image.any()) else 0
        height, width = float(image.shape[1]), float(image.shape[2])
        coarse, fine = torch.zeros(people, 2, 8, 8), torch.zeros(people, 25, 8, 8)
        coarse[:, 1] = 1.0
        fine[:, 2] = 1.0
        half = torch.full((people, 25, 8, 8), 0.5)
        box = torch.tensor([[0.3 * width, 0.1 * height, 0.7 * width, 0.9 * height]])
        return box[:people], coarse, fine, half, half


class App:
    """Stands for insightface: a face in every picture, whose embedding is the picture's height and width."""

    def get(self, bgr):
        numbers = np.resize(np.array(bgr.shape[:2], np.float32), 512)
        return [SimpleNamespace(bbox=np.array([10.0, 10.0, 18.0, 18.0]), embedding=numbers)]


class Network:
    """Stands for OpenCV's single shot detector: the answer is (1, 1, N, 7) of picture, class, confidence and box."""

    def __init__(self, found):
        self.found = np.array(found, np.float32).reshape(1, 1, -1, 7)

    def setInput(self, blob):
        self.blob = blob

    def forward(self):
        return self.found


@pytest.fixture
def opencv(monkeypatch):
    """OpenCV with a reader of Caffe's files, which version 5 has not. -> [network, names of the files]."""
    import cv2
    kept = []
    network = Network([[0, 1, 0.9, 0.1, 0.1, 0.2, 0.2], [0, 1, 0.6, 0.25, 0.5, 0.5, 0.75], [0, 1, 0.4, 0, 0, 1, 1]])
    monkeypatch.setattr(cv2.dnn, "readNetFromCaffe", lambda *names: kept.extend([network, names]) or network, raising=False)
    return kept


def test_the_largest_sure_face_is_found_in_pixels(opencv, tmp_path):
    find = single_shot(tmp_path / "a.caffemodel", tmp_path / "a.prototxt")
    photo = np.zeros((*SIZE, 3), np.uint8)
    photo[..., 0] = 200   # red
    assert find(photo) == (10.0, 30.0, 20.0, 45.0)
    network, names = opencv
    assert names == (str(tmp_path / "a.prototxt"), str(tmp_path / "a.caffemodel"))
    assert network.blob.shape == (1, 3, 300, 300)
    assert np.allclose(network.blob[0, :, 150, 150], [-104, -177, 200 - 123])   # blue, green, red
    network.found = network.found[:, :, 2:]
    assert find(photo) is None   # none that is sure


def test_an_opencv_that_reads_no_caffe_says_what_to_do(monkeypatch, tmp_path):
    import cv2
    monkeypatch.delattr(cv2.dnn, "readNetFromCaffe", raising=False)
    with pytest.raises(ValueError, match="does not read Caffe's files; expected OpenCV 4"):
        single_shot(tmp_path / "a.caffemodel", tmp_path / "a.prototxt")


def test_the_pages_command_makes_the_conditions_beside_the_photos(tmp_path, monkeypatch, opencv, capsys):
    folder = here(tmp_path, monkeypatch) / "DATA"
    (folder / "train_highres").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, photo in (("a", rng.integers(1, 256, (*SIZE, 3), dtype=np.uint8)), ("b", np.zeros((*SIZE, 3), np.uint8))):
        Image.fromarray(photo).save(folder / "train_highres" / f"{name}.png")
    torch.jit.script(Standing()).save("DENSEPOSE")
    apps = []
    monkeypatch.setattr(prepare_mcld, "load_app", lambda root: apps.append(str(root)) or App())
    command(PREPARE)
    assert apps == ["MODELS/insightface"] and "nobody found in 1 photos, whose pairs are left out: train_highres/b.png" \
        in capsys.readouterr().out
    made = {kind: [path.name for path in (folder / f"train_{kind}").iterdir()] for kind in ("densepose", "texture", "face")}
    assert made == {"densepose": ["a.png"], "texture": ["a.png"], "face": ["a.npy"]}
    part = np.array(Image.open(folder / "train_densepose" / "a.png"))[..., 2]
    assert set(np.unique(part)) == {0, 2} and part[30, 20] == 2
    assert Image.open(folder / "train_texture" / "a.png").size == (512, 512)
    expected = {(): SIZE, ("--face", "box"): (12, 12), ("--face", "box", "--ssd", "m", "p"): (22, 23)}   # 1.5 times the box
    for more, size in expected.items():
        for path in (*folder.glob("train_densepose/*"), *folder.glob("train_face/*")):
            path.unlink()
        command(PREPARE, *more)
        assert tuple(np.load(folder / "train_face" / "a.npy")[:2]) == size, more
    with pytest.raises(SystemExit):
        command(PREPARE, "--ssd", "m", "p")
    assert "--ssd finds boxes, but --face is photo; expected --face box" in capsys.readouterr().err
