"""What the tests of saved workflows share: the files, nodes of a prompt by their kind, and the pictures that come out."""

from __future__ import annotations

import json

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tests.host.http_host import WORKFLOWS

COMPLAINTS = ("lora key not loaded", "could not be applied", "missing controlnet keys", "unet missing", "Traceback")
SAME_PSNR = 45.0   # dB, between the host's picture and the command line's, whose timesteps differ by less than one


def workflow(name: str) -> dict:
    return json.loads((WORKFLOWS / f"{name}.json").read_text())


def only(prompt: dict, kind: str) -> str:
    """The id of the one node of this type."""
    [number] = [number for number, node in prompt.items() if node["class_type"] == kind]
    return number


def of_node(server, outputs: dict, number: str) -> list[np.ndarray]:
    """The pictures that a node gave out, each (H, W, 3) uint8."""
    return [server.picture(file) for file in outputs[number]["images"]]


def showing(prompt: dict, kind: str, source: str, output: int = 0) -> str:
    """The id of the node of this type that shows an output of `source`."""
    [number] = [number for number, node in prompt.items()
                if node["class_type"] == kind and node["inputs"].get("images") == [source, output]]
    return number


def is_a_picture(picture: np.ndarray, size: tuple[int, int]) -> None:
    assert picture.shape == (*size, 3)
    assert picture.std() > 2, "the picture is one colour, or nearly"


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    error = np.mean((first.astype(np.float64) - second.astype(np.float64)) ** 2)
    return float(10 * np.log10(255 ** 2 / error))


def as_batch(picture: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) in 0..1."""
    return torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 255


def input_picture(name: str) -> np.ndarray:
    return np.asarray(Image.open(WORKFLOWS / "inputs" / name).convert("RGB"))
