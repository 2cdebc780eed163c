"""The converter for CFLD's published files."""

import math
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pgpis_models.cfld.config import CONFIGS
from pgpis_models.cfld.convert import convert, published_layout
from pgpis_models.cfld.model import CFLD
from pgpis_models.checkpoint import load_checkpoint
from pgpis_models.convert import main
from pgpis_models.files.torch_states import read_torch_file
from pgpis_models.unet.shapes import unet_shapes
from tests.helpers.published import UNET, as_torch, manifest

ROOT = Path(__file__).resolve().parents[3]
TINY = CONFIGS["tiny"]


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(0)
    built = CFLD(TINY).eval()
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return built


@pytest.fixture(scope="module")
def unet():
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(shape, generator=generator) for name, shape in UNET.items()}


@pytest.fixture
def published(tmp_path, module, unet):
    """(pytorch_model.bin, pytorch_model_1.bin) in the authors' layout, small."""
    conditioning = dict(module.state_dict()) | dict(module.named_buffers())
    whole = {f"model.{name}": value for name, value in unet.items()}
    return as_torch(tmp_path, {"pytorch_model": conditioning, "pytorch_model_1": whole})


def small(inputs, output, **options):
    return convert(inputs, output, config=TINY, unet=UNET, **options)


def test_the_layout_derived_from_the_modules_is_that_of_the_published_files():
    files, layout = manifest("cfld")["checkpoint"], published_layout()
    with torch.device("meta"):
        full = CFLD(CONFIGS["full"])
    entries = {**dict(full.named_parameters()), **dict(full.named_buffers())}

    first, second = files["pytorch_model.bin"], files["pytorch_model_1.bin"]
    assert {key: (tuple(shape), dtype) for key, shape, dtype in first["keys"]} == {
        key: (tuple(value.shape), str(value.dtype).removeprefix("torch.")) for key, value in entries.items()}
    assert set(layout.parameters) == set(first["trainable"]) and set(layout.buffers) == set(first["buffers"])
    assert {key: (tuple(shape), dtype) for key, shape, dtype in second["keys"]} == {
        f"model.{key}": (shape, "float32") for key, shape in layout.unet.items()}
    assert {f"model.{key}" for key in layout.trained_unet} == set(second["trainable"])
    assert {key: layout.unet[key] for key in layout.trained_unet} == full.unet_weight_shapes()
    for part, count in first["trainable_params"].items():
        own = full.get_submodule(part).parameters() if part != "learnable_vector" else [full.learnable_vector]
        assert sum(value.numel() for value in own) == count, part


def test_the_numbers_of_weights_are_those_of_the_papers_table_1():
    with torch.device("meta"):
        full = CFLD(CONFIGS["full"])
    found = {part: sum(value.numel() for value in full.get_submodule(part).parameters())
             for part in ("backbone", "appearance_encoder", "decoder", "pose_encoder")}
    found["keys and values of the UNet"] = sum(map(math.prod, full.unet_weight_shapes().values()))
    found["all that is trained"] = sum(found.values()) + full.learnable_vector.numel()
    for part, number in found.items():
        print(f"{part:28} {number / 1e6:6.1f} M")
    assert [round(number / 1e6, 1) for number in found.values()] == [87.0, 22.5, 97.7, 30.6, 10.3, 248.2]


def test_the_unet_layout_is_that_of_diffusers():
    diffusers = pytest.importorskip("diffusers")
    with torch.device("meta"):
        theirs = diffusers.UNet2DConditionModel(
            block_out_channels=(32, 64, 96, 128), cross_attention_dim=24, layers_per_block=1, norm_num_groups=32,
            down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3)
    ours = unet_shapes((32, 64, 96, 128), context=24, layers=1)
    assert ours == {name: tuple(value.shape) for name, value in theirs.state_dict().items()}


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_converted_checkpoint_computes_what_the_published_one_does(published, module, unet, tmp_path, prefix,
                                                                     swapped):
    if prefix:
        for path in published:
            torch.save({prefix + key: value for key, value in torch.load(path).items()}, path)
    said = small(published[::-1] if swapped else published, tmp_path / "out.safetensors")
    assert "18 of 686" in said
    loaded = load_checkpoint(tmp_path / "out.safetensors", expect_method="cfld")
    source, pose = torch.randn(2, 3, 64, 64), torch.rand(2, 21, 64, 64)
    with torch.no_grad():
        mine, other = loaded.method.encode(source, pose), module.encode(source, pose)
    assert torch.equal(mine.prompt, other.prompt) and torch.equal(mine.null_prompt, module.learnable_vector)
    assert all(torch.equal(mine.query_bias[site], other.query_bias[site]) for site in other.query_bias)
    assert all(torch.equal(a, b) for a, b in zip(mine.pose_maps, other.pose_maps))
    assert set(loaded.unet_weights) == set(module.trainable_unet_weights())
    assert all(torch.equal(value, unet[key]) for key, value in loaded.unet_weights.items())
    assert loaded.meta.base == "sd15" and "MIT" in loaded.meta.licence


def test_all_unet_stores_every_weight_and_half_halves_the_file(published, unet, tmp_path):
    small(published, tmp_path / "all.safetensors", all_unet=True)
    loaded = load_checkpoint(tmp_path / "all.safetensors").unet_weights
    assert loaded.keys() == unet.keys() and all(torch.equal(loaded[key], unet[key]) for key in unet)
    small(published, tmp_path / "half.safetensors", all_unet=True, dtype=torch.float16)
    assert {value.dtype for value in load_file(tmp_path / "half.safetensors").values()} == {torch.float16}
    sizes = [(tmp_path / name).stat().st_size for name in ("half.safetensors", "all.safetensors")]
    assert sizes[0] < 0.6 * sizes[1]


def test_the_frozen_rest_is_compared_with_a_given_base(published, module, unet, tmp_path):
    trained = module.trainable_unet_weights()
    base = {key: torch.randn_like(value) if key in trained else value.clone() for key, value in unet.items()}
    for dtype in (torch.float32, torch.float16):  # a base in half precision is compared in half precision
        save_file({key: value.to(dtype) for key, value in base.items()}, tmp_path / "base.safetensors")
        small(published, tmp_path / "out.safetensors", base=tmp_path / "base.safetensors")
    base["conv_in.weight"][0, 0, 0, 0] += 1
    base["mid_block.resnets.0.conv1.bias"] += 1
    save_file(base, tmp_path / "base.safetensors")
    with pytest.raises(ValueError, match="2 of 668 frozen UNet weights differ from .*base.*conv_in.weight.*--all-unet"):
        small(published, tmp_path / "out.safetensors", base=tmp_path / "base.safetensors")
    del base["conv_out.bias"]
    save_file(base, tmp_path / "base.safetensors")
    with pytest.raises(ValueError, match=r"1 keys missing: \['conv_out.bias'\]"):
        small(published, tmp_path / "out.safetensors", base=tmp_path / "base.safetensors")


# --- inputs that are refused ----------------------------------------------------------------------------------

def changed(path, change):
    state = torch.load(path)
    change(state)
    torch.save(state, path)


def test_missing_unexpected_and_misshapen_keys_are_listed(published, tmp_path):
    changed(published[0], lambda s: (s.pop("decoder.query_feat"), s.update({"decoder.more": torch.zeros(1)}),
                                     s.update({"learnable_vector": torch.zeros(1, 5, 23)})))
    with pytest.raises(ValueError) as caught:
        small(published, tmp_path / "out.safetensors")
    text = str(caught.value)
    assert "1 keys missing: decoder.query_feat" in text and "1 keys unexpected: decoder.more" in text
    assert "learnable_vector (1, 5, 23) instead of (1, 5, 24)" in text and not (tmp_path / "out.safetensors").exists()


def test_a_unet_with_a_missing_frozen_weight_is_refused_though_it_is_not_stored(published, tmp_path):
    changed(published[1], lambda s: s.pop("model.conv_in.weight"))
    with pytest.raises(ValueError, match=f"{published[1]}: the UNet does not fit .*: 1 keys missing: conv_in.weight"):
        small(published, tmp_path / "out.safetensors")


def test_the_full_size_layout_refuses_small_files(published, tmp_path):
    with pytest.raises(ValueError, match="does not fit CFLD: .*keys missing"):
        convert(published, tmp_path / "out.safetensors")


def test_buffers_may_be_absent_but_not_of_another_geometry(published, tmp_path):
    index = "backbone.layers.0.blocks.0.attn.relative_position_index"
    changed(published[0], lambda s: [s.pop(key) for key in list(s) if key.endswith(("_index", "attn_mask"))])
    small(published, tmp_path / "out.safetensors")
    changed(published[0], lambda s: s.update({index: torch.zeros(9, 9, dtype=torch.int64)}))
    with pytest.raises(ValueError, match=rf"{index} \(9, 9\) instead of \(16, 16\)"):
        small(published, tmp_path / "out.safetensors")


def test_the_wrong_number_or_kind_of_files_is_refused(published, tmp_path):
    with pytest.raises(ValueError, match="1 input files; expected two"):
        small(published[:1], tmp_path / "out.safetensors")
    with pytest.raises(ValueError, match="both are a UNet; expected one conditioning model"):
        small([published[1], published[1]], tmp_path / "out.safetensors")
    torch.save({"state.step": torch.zeros(1)}, tmp_path / "optimizer.bin")
    with pytest.raises(ValueError, match=r"neither CFLD's conditioning .* its 1 keys start with \['state.step'\]"):
        small([published[0], tmp_path / "optimizer.bin"], tmp_path / "out.safetensors")


class Exploit:
    """Unpickling this would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


def test_pickles_with_code_are_refused_and_do_not_run(tmp_path):
    target = tmp_path / "ran"
    torch.save({"backbone.x": Exploit(target)}, tmp_path / "zip.bin")
    with pytest.raises(ValueError, match="refused: it holds objects other than tensors.*run code"):
        read_torch_file(tmp_path / "zip.bin")
    (tmp_path / "bare.bin").write_bytes(pickle.dumps(Exploit(target)))
    with pytest.raises(ValueError, match="bare pickle.*refused"):
        read_torch_file(tmp_path / "bare.bin")
    assert not target.exists()


def test_other_and_damaged_files_are_refused(tmp_path, published):
    whole = published[0].read_bytes()
    cases = {
        "cut.bin": (whole[:len(whole) // 2], "cut off or damaged"),
        "empty.bin": (b"", "not a torch file"),
        "lfs.bin": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        "page.bin": (b"<!DOCTYPE html>", "web page"),
    }
    for name, (content, reason) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=reason) as caught:
            read_torch_file(tmp_path / name)
        assert name in str(caught.value)
    with zipfile.ZipFile(tmp_path / "zip.bin", "w") as archive:
        archive.writestr("a.txt", "not a model")
    with pytest.raises(ValueError, match="zip.bin"):
        read_torch_file(tmp_path / "zip.bin")
    with pytest.raises(FileNotFoundError, match="nothing.bin"):
        read_torch_file(tmp_path / "nothing.bin")
    torch.save([torch.zeros(1)], tmp_path / "list.bin")
    with pytest.raises(ValueError, match="holds a list; expected a dict"):
        read_torch_file(tmp_path / "list.bin")
    torch.save({"epoch": 3, "x": torch.zeros(1)}, tmp_path / "nested.bin")
    with pytest.raises(ValueError, match=r"1 of 2 entries are not tensors by name: epoch \(int\)"):
        read_torch_file(tmp_path / "nested.bin")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's list of mapped files")
def test_reading_maps_the_file_and_loading_maps_the_checkpoint(published, tmp_path):
    state = read_torch_file(published[0])
    assert str(published[0]) in Path("/proc/self/maps").read_text() and state
    small(published, tmp_path / "out.safetensors")
    loaded = load_checkpoint(tmp_path / "out.safetensors")
    assert str(tmp_path / "out.safetensors") in Path("/proc/self/maps").read_text() and loaded


# --- command line ---------------------------------------------------------------------------------------------

def test_the_command_line_reports_errors_in_one_line(published, tmp_path, capsys):
    assert main(["cfld", str(published[0]), str(published[1]), str(tmp_path / "out.safetensors")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {published[0]}: the conditioning model does not fit CFLD") and error.count("\n") == 1
    assert main(["cfld", str(tmp_path / "no.bin"), str(published[1]), str(tmp_path / "out.safetensors")]) == 2
    assert "no file" in capsys.readouterr().err


def test_the_module_runs_as_a_command(tmp_path):
    done = subprocess.run([sys.executable, "-m", "pgpis_models.convert", "cfld", "a.bin", "b.bin", "out.safetensors"],
                          cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 2 and "no file a.bin" in done.stderr and "Traceback" not in done.stderr
