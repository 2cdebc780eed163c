"""Base UNets as files: what is saved comes back with its sizes, and what is something else is refused."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from pgpis_models.noise.schedule import NoiseSchedule
from pgpis_models.unet.base import BaseSizes, load_unet, read_sizes, save_unet
from tests.helpers.tiny import SIZES, shaken, write_base, write_diffusers


@pytest.fixture(autouse=True)
def without_gradients():
    torch.manual_seed(0)
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base") / "base.safetensors")


def test_a_base_comes_back_in_half_precision_with_its_sizes(tmp_path):
    unet = shaken(SIZES.build(), 0.02).half().float().eval()
    save_unet(tmp_path / "base.safetensors", unet, SIZES, step=5, data="mannequins")
    loaded, sizes = load_unet(tmp_path / "base.safetensors")
    assert sizes == SIZES == read_sizes(tmp_path / "base.safetensors") and not loaded.training
    state = loaded.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in unet.state_dict().items())
    x, time, context = torch.randn(1, 4, 16, 16), torch.tensor([500]), torch.randn(1, 16, 64)
    assert torch.equal(loaded(x, time, context).sample, unet(x, time, context).sample)
    assert sizes.schedule().prediction == "v_prediction"


def test_a_diffusers_folder_is_read_with_its_prediction(tmp_path):
    sizes = dataclasses.replace(SIZES, prediction="epsilon", caption_tokens=0)
    folder = write_diffusers(tmp_path, sizes)
    assert load_unet(folder)[1] == sizes
    write_diffusers(folder, dataclasses.replace(sizes, prediction="v_prediction"))
    for path in (folder, folder / "unet"):
        assert load_unet(path)[1].prediction == "v_prediction"
    (folder / "scheduler" / "scheduler_config.json").write_text("{}")   # as old as Stable Diffusion 1.5's
    assert load_unet(folder)[1].prediction == "epsilon"


def test_a_diffusers_folder_without_a_scheduler_is_refused(tmp_path):
    """A wrong guess loads as well, and makes grey noise."""
    folder = write_diffusers(tmp_path / "sd", SIZES)
    (folder / "scheduler" / "scheduler_config.json").unlink()
    for path in (folder, folder / "unet"):
        with pytest.raises(ValueError, match="does not say whether its UNet predicts noise.*fetch scheduler/"):
            load_unet(path)
    own = NoiseSchedule(prediction="v_prediction")   # of a method that does not use the base's
    assert load_unet(folder, own)[1].prediction == "v_prediction"


def change(base, path, tensors=lambda t: t, metadata=lambda m: m):
    """The base file with other tensors or metadata."""
    from safetensors import safe_open
    with safe_open(str(base), "pt") as file:
        texts = {key: value for key, value in file.metadata().items() if key != "pgpis.digest"}
    save_file(tensors(load_file(base)), path, metadata(texts))
    return path


def test_files_that_are_not_the_base_they_say_are_refused_with_the_keys(tmp_path, base):
    path = tmp_path / "changed.safetensors"

    def renamed(tensors):
        return {f"x.{key}" if key.startswith("conv_in") else key: value for key, value in tensors.items()}

    with pytest.raises(ValueError, match="2 keys missing: conv_in.weight, conv_in.bias; 2 keys unexpected: x.conv_in"):
        load_unet(change(base, path, tensors=renamed))
    wider = json.dumps(dataclasses.asdict(SIZES) | {"cross_attention_dim": 96})
    with pytest.raises(ValueError, match="does not hold the UNet that its metadata describes: 32 keys of another shape"):
        load_unet(change(base, path, metadata=lambda m: m | {"pgpis.config": wider}))
    newer = json.dumps(dataclasses.asdict(SIZES) | {"head": 3})
    with pytest.raises(ValueError, match="sizes of the base: unknown setting 'head'; did you mean 'heads'"):
        load_unet(change(base, path, metadata=lambda m: m | {"pgpis.config": newer}))
    with pytest.raises(ValueError, match="is not a base UNet of this pack .pgpis.kind is None"):
        load_unet(change(base, path, metadata=lambda m: {}))
    path.write_bytes(base.read_bytes()[:5000])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load_unet(path)
    with pytest.raises(FileNotFoundError, match="no file"):
        load_unet(tmp_path / "nowhere.safetensors")


def test_full_sizes_are_those_of_stable_diffusion():
    sizes = BaseSizes()
    with torch.device("meta"):
        count = sum(p.numel() for p in sizes.build().parameters())
    assert count == 859_520_964   # CFLD's paper gives this number for SD1.5
