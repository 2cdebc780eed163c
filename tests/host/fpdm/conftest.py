"""A tiny random checkpoint of FPDM, of a v-prediction base, and the nodes that read it."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="module")
def fpdm(tiny_method, tiny):
    return tiny_method("fpdm", "FPDM", "fpdm_tiny", 31, context=tiny.context)


@pytest.fixture(scope="module")
def qen(tiny_method, tiny):
    return tiny_method("qen", "QEN", "qen_sequence", 33, unet_heads=tiny.heads, prompt_width=tiny.context)


@pytest.fixture(scope="module")
def nodes(host):
    from types import SimpleNamespace
    return SimpleNamespace(**{name: host.pack(f"nodes.{name}") for name in
                              ("loaders", "pose", "appearance", "fusion", "sampling", "sequence")})


@pytest.fixture(scope="module")
def model(nodes, demo):
    return nodes.loaders.LoadDemoBase.execute().result[0]


@pytest.fixture(scope="module")
def photo():
    return torch.randint(0, 256, (1, 150, 100, 3), generator=torch.Generator().manual_seed(2)).float() / 255
