"""The node that gives the demo world's pictures."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.host.http_host import WORKFLOWS
from tools.picture_workflows import SIZE

INPUTS = sorted(path.name for path in (WORKFLOWS / "inputs").glob("*.png"))
PICTURES = [name for name in INPUTS if name != "pgpis_photo.png"]   # that one is for Load Image


@pytest.fixture(scope="module")
def node(host):
    return host.pack("nodes.demo").DemoPicture


@pytest.mark.hosts
def test_every_picture_comes_as_it_is_in_its_file(node):
    [choice] = node.define_schema().inputs
    assert f"{SIZE[0]}x{SIZE[1]} (height x width)" in node.define_schema().outputs[0].tooltip
    assert choice.options == PICTURES and len(PICTURES) == 12
    for name in PICTURES:
        assert node.validate_inputs(name) is True
        image, mask = node.execute(name).result
        stored = np.asarray(Image.open(WORKFLOWS / "inputs" / name).convert("RGB"))
        assert stored.shape == (*SIZE, 3)
        assert np.array_equal((image[0].numpy() * 255).round().astype(np.uint8), stored)
        assert mask.shape == image.shape[:3] and np.array_equal(mask[0].numpy(), image[0, ..., 0].numpy())


@pytest.mark.parametrize("name", ["nobody.png", "../cfld_sd15.graph.png", "", str(WORKFLOWS / "inputs" / PICTURES[0])])
def test_another_name_is_refused_with_those_that_there_are(node, name):
    answer = node.validate_inputs(name)
    assert isinstance(answer, str) and repr(name) in answer and "pgpis_source.png" in answer
    with pytest.raises(ValueError, match="no demo picture .*expected one of pgpis_person.png"):
        node.execute(name)
