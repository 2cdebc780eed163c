"""A tiny QEN with random weights, and what it reads."""

from __future__ import annotations

import dataclasses

import torch

from pgpis_models.qen.config import CONFIGS, QENConfig
from pgpis_models.qen.model import QEN
from tests.helpers.tiny import shaken

TINY = CONFIGS["tiny"]


def tiny_qen(seed=0, **changes) -> QEN:
    torch.manual_seed(seed)
    return shaken(QEN(dataclasses.replace(TINY, **changes))).eval()


def inputs(config: QENConfig, batch=2, seed=1):
    g = torch.Generator().manual_seed(seed)
    pose = torch.zeros(batch, config.pose_channels, *config.pose_size)
    pose[:, :3, 10:30, 20:24] = torch.rand(batch, 3, 20, 4, generator=g) / 2 + 0.5
    return torch.rand(batch, 3, *config.image_size, generator=g) * 2 - 1, pose
