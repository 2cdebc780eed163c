"""A run that torchrun starts in several processes: a line, fitted with noise and dropout."""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from training.engine.config import TrainConfig
from training.engine.loop import run
from training.engine.shares import WHOLE


class Line(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 2)

    def forward(self, batch):
        x = nn.functional.dropout(batch["x"] + 0.1 * torch.randn_like(batch["x"]), 0.2, self.training)
        loss = (self.layer(x) - batch["y"]).square().mean()
        return loss, {"error": loss.detach()}


class LineTask:
    loader_workers = 0

    def __init__(self, config, device):
        self.model = Line().to(device)

    def groups(self, lr):
        return [{"params": list(self.model.parameters()), "lr": lr}]

    def batch(self, rng, size, share=WHOLE):
        x = torch.from_numpy(share.of(rng.standard_normal((size, 3)))).float()
        return {"x": x, "y": x[:, :2] * 2}

    unseen = batch

    def grid(self):
        return torch.zeros(4, 4, 3).byte().numpy()

    def export(self, path: Path, images):
        save_file({key: value.detach().clone() for key, value in self.model.state_dict().items()}, path)


def train(folder: Path) -> Path:
    return run(TrainConfig(name="line", output=str(folder), images=160, batch=8, accumulate=2, lr=0.1, warmup_images=8,
                           ema=0.9, precision="no", sample_every=0, save_every=80, log_every=3), LineTask)


if __name__ == "__main__":
    train(Path(sys.argv[1]))
