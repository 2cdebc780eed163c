"""What a preset needs is found by what is in files, and what is missing is listed at once."""

from __future__ import annotations

import importlib

import pytest
import torch
from safetensors.torch import save_file

from pgpis_models.files.presets import DIFFUSERS, FIRST, LAST_BIAS, NATIVE, PRESETS, BaseFile, base_of, find, is_clip, is_vae
from pgpis_models.pipeline import DEMO_FOLDER
from tests.helpers.published import as_torch, cfld_states, mcld_states, tiny_converters

DEMO = sorted(DEMO_FOLDER.glob("*.safetensors"))


def unet(path, context=768, place=NATIVE, prefix="", first=4, spread=0.0, vae=False):
    """A file with the few tensors that tell a base."""
    tensors = {prefix + place: torch.zeros(320, context), prefix + FIRST[place]: torch.zeros(320, first, 3, 3),
               prefix + LAST_BIAS[place]: torch.linspace(-spread, spread, 320)}
    if vae:
        tensors["first_stage_model.decoder.conv_in.weight"] = torch.zeros(1)
    save_file(tensors, path)
    return path


def autoencoder(path):
    shapes = {"decoder.conv_in.weight": (512, 4, 3, 3), "encoder.conv_in.weight": (128, 3, 3, 3)}
    save_file({key: torch.zeros(shape) for key, shape in shapes.items()}, path)
    return path


def clip(path, tokens=257):
    save_file({"visual_projection.weight": torch.zeros(768, 1024),
               "vision_model.embeddings.position_embedding.weight": torch.zeros(tokens, 1024)}, path)
    return path


WHOLE = "model.diffusion_model."


def test_bases_are_told_by_shapes_not_by_names(tmp_path):
    cases = {
        "a": (unet(tmp_path / "a.safetensors", prefix=WHOLE, vae=True), BaseFile("sd15", True, True)),
        "b": (unet(tmp_path / "b.safetensors"), BaseFile("sd15", False, False)),
        "c": (unet(tmp_path / "c.safetensors", place=DIFFUSERS), BaseFile("sd15", False, False)),
        "d": (unet(tmp_path / "d.safetensors", 1024, prefix=WHOLE, spread=0.3, vae=True), BaseFile("sd21", True, True)),
        "e": (unet(tmp_path / "e.safetensors", 1024, place=DIFFUSERS, spread=0.05), BaseFile("sd21-base", False, False)),
        "inpainting": (unet(tmp_path / "f.safetensors", first=9), None),
        "sdxl": (unet(tmp_path / "g.safetensors", 2048), None),
        "vae": (autoencoder(tmp_path / "v15.safetensors"), None)}
    (tmp_path / "v1-5-pruned-emaonly.safetensors").write_bytes(b"version https://git-lfs")
    for name, (path, expected) in cases.items():
        assert base_of(path) == expected, name
    assert base_of(tmp_path / "v1-5-pruned-emaonly.safetensors") is None and base_of(tmp_path / "nothing.ckpt") is None
    assert is_vae(cases["vae"][0]) and not is_vae(cases["a"][0])
    assert is_clip(clip(tmp_path / "clip.safetensors")) and not is_clip(clip(tmp_path / "clip336.safetensors", 577))


@pytest.mark.parametrize("method", ["cfld", "mcld", "fpdm", "qen"])
def test_the_demos_files_are_found_under_any_name(tmp_path, method):
    copies = []
    for number, path in enumerate(DEMO):
        copies.append(tmp_path / f"{number}.safetensors")
        copies[-1].symlink_to(path)
    found = find(f"Demo {method.upper()}", copies, [])
    found.check("it")
    assert {role: path.resolve().name for role, path in found.files.items()} == {
        "method": f"demo_{method}.safetensors", "base": "demo_base.safetensors", "vae": "demo_vae.safetensors"}


def test_published_weights_make_a_preset_and_ours_are_preferred(tmp_path, monkeypatch):
    tiny_converters(importlib.import_module, monkeypatch)
    files = as_torch(tmp_path / "mcld", mcld_states(), ".pth")
    bases = [unet(tmp_path / "x.safetensors", 1024, prefix=WHOLE, spread=0.3, vae=True),
             *(unet(tmp_path / name, prefix=WHOLE, vae=True) for name in ("y.safetensors", "z.safetensors"))]
    clips = [clip(tmp_path / "other.safetensors", 577), clip(tmp_path / "it.safetensors")]
    found = find("MCLD on SD1.5", files, bases, [], clips)
    assert found.files == {"method": files[0], "base": bases[1], "vae": bases[1], "clip": clips[1]} and not found.missing
    assert "clip" not in find("CFLD on SD1.5", as_torch(tmp_path / "cfld", cfld_states()), bases, [], clips).files
    importlib.import_module("pgpis_models.mcld.convert").convert(files, tmp_path / "ours.safetensors")
    assert find("MCLD on SD1.5", [*files, tmp_path / "ours.safetensors"], bases, [], clips).files["method"].name == \
        "ours.safetensors"


def test_a_base_without_an_autoencoder_takes_one_from_its_folder(tmp_path):
    base, vae = unet(tmp_path / "unet.safetensors", place=DIFFUSERS), autoencoder(tmp_path / "vae.safetensors")
    assert find("QEN on SD1.5", [], [base], [vae]).files == {"base": base, "vae": vae}
    lacking = find("QEN on SD1.5", [], [base], []).missing
    assert [need.folder for need in lacking] == ["models/pgpis", "models/vae"]


@pytest.mark.parametrize("name", PRESETS)
def test_everything_that_is_missing_is_listed_at_once_with_page_folder_and_size(name):
    with pytest.raises(FileNotFoundError) as error:
        find(name, [], []).check(name)
    text = str(error.value)
    needs = [need for role, need in PRESETS[name].needs.items() if role != "vae" or PRESETS[name].base == "demo"]
    assert text.startswith(f"{name} lacks {len(needs)} of {len(needs)} things:") and "their names do not matter" in text
    for need in needs:
        assert need.what in text and need.page in text and need.folder in text and need.size in text
    assert "None" not in text and ", :" not in text
    if name.startswith("MCLD"):
        assert "https://huggingface.co/Lotior/mcld" in text and "MIT" in text


def test_half_a_set_of_published_files_says_what_is_missing_of_it(tmp_path):
    files = as_torch(tmp_path, mcld_states(), ".pth")
    files[2].unlink()
    base = unet(tmp_path / "b.safetensors", prefix=WHOLE, vae=True)
    with pytest.raises(FileNotFoundError, match="lacks 2 of 3 things") as error:
        find("MCLD on SD1.5", [path for path in files if path.exists()], [base]).check("MCLD on SD1.5")
    assert "no MCLD's pose guider" in str(error.value) and "CLIP ViT-L/14" in str(error.value)
    other = find("FPDM on SD2.1", [], [unet(tmp_path / "c.safetensors", 1024, prefix=WHOLE, spread=0.01, vae=True)])
    assert [need.what[:24] for need in other.missing] == ["FPDM's weights of stage ", "Stable Diffusion 2.1 (v2"]
