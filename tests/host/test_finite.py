"""Numbers that are none: the node or the run that meets them says so, in place of a black picture."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from tests.host.test_model_untouched import applied, sample


@pytest.fixture(scope="module")
def pack(host):
    return SimpleNamespace(binding=host.pack("nodes.binding.model"), injections=host.pack("pgpis_models.unet.injections"),
                           feathering=host.pack("pgpis_models.garments.feathering"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_of_the_model_is_named_by_the_run_that_it_spoils(pack, tiny, value):
    model = tiny.model()
    patched, positive, negative = applied(pack, tiny, model)
    with torch.no_grad():
        model.model.diffusion_model.middle_block[0].in_layers[2].weight.view(-1)[0] = value
    with pytest.raises(ValueError, match="a black picture; 1 weights of the MODEL are not finite: "
                                         r"diffusion_model.middle_block.0.in_layers.2.weight\. Load another file"):
        sample(patched, positive, negative, tiny)


def test_a_guidance_that_overflows_is_told_from_weights_that_do(pack, tiny):
    patched, positive, negative = applied(pack, tiny, tiny.model())
    positive = [[torch.full_like(positive[0][0], 1e38), positive[0][1]]]
    with pytest.raises(ValueError, match="its weights are finite, so something overflowed: lower cfg"):
        sample(patched, positive, negative, tiny)


def test_a_mask_of_no_numbers_is_refused(pack):
    with pytest.raises(ValueError, match="MASK holds values that are not finite"):
        pack.feathering.feathered(torch.full((1, 8, 8), torch.nan), (8, 8), 0)
