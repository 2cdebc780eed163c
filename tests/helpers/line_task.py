"""The smallest task that the training loop can run: a line through noisy points."""

import math
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from training.engine.config import TrainConfig


class Interrupted(Exception):
    pass


class Line(nn.Module):
    """Fits a line, with noise from torch's generator and dropout, as real tasks have."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        self.noises = []

    def forward(self, batch):
        noise = 0.1 * torch.randn_like(batch["x"])
        if self.training:
            self.noises.append(noise.flatten()[0].item())
        error = self.layer(nn.functional.dropout(batch["x"] + noise, 0.2, self.training)) - batch["y"]
        return error.square().mean() * batch["scale"], {"noise": noise.mean()}


class LineTask:
    """stop_at: number of the training batch at which a run breaks off; blow_up: from which on the loss is infinite."""

    loader_workers = 0
    made: "LineTask"

    def __init__(self, config, device, stop_at=math.inf, blow_up=math.inf):
        self.model, self.stop_at, self.blow_up, self.batches = Line().to(device), stop_at, blow_up, 0
        self.during_export = None
        LineTask.made = self

    def groups(self, lr):
        return [{"params": [p for p in self.model.parameters() if p.requires_grad], "lr": lr}]

    def batch(self, rng, size):
        self.batches += self.model.training   # what is drawn to be measured does not count
        if self.batches >= self.stop_at:
            raise Interrupted
        x = torch.from_numpy(rng.standard_normal((size, 3))).float()
        scale = torch.tensor(math.inf if self.batches >= self.blow_up else 1.0)
        return {"x": x, "y": x[:, :2] * 2 + 1, "scale": scale}

    def unseen(self, rng, size):
        x = torch.from_numpy(rng.standard_normal((size, 3))).float()
        return {"x": x, "y": -x[:, :2], "scale": torch.tensor(1.0)}

    def grid(self):
        assert not self.model.training
        return np.zeros((4, 4, 3), np.uint8)

    def export(self, path: Path, images):
        save_file({k: v.detach().clone() for k, v in self.model.state_dict().items()}, path, {"images": str(images)})


def config(folder, **changes):
    settings = {"name": "line", "output": str(folder), "images": 80, "batch": 4, "lr": 0.05, "warmup_images": 8, "ema": 0.9,
                "precision": "no", "sample_every": 40, "save_every": 20, "log_every": 3}
    return TrainConfig(**(settings | changes))


def states(folder):
    return sorted(p.name for p in (folder / "line").glob("state-*"))


def same(first, second):
    first, second = load_file(first), load_file(second)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
