"""Load Pose Transfer, and published weights in Load PGPIS Checkpoint, in the host."""

from __future__ import annotations

import os
import shutil

import pytest
import torch
from safetensors.torch import save_file

from tests.helpers.published import as_safetensors, as_torch, cfld_states, fpdm_state, mcld_states, tiny_converters


@pytest.fixture
def loaders(host, monkeypatch):
    """The loaders, with converters that expect tiny sizes, and a clean models/pgpis/sets."""
    tiny_converters(host.pack, monkeypatch)
    folder = host.base / "models" / "pgpis" / "sets"
    shutil.rmtree(folder, ignore_errors=True)
    yield host.pack("nodes.loaders"), folder
    shutil.rmtree(folder, ignore_errors=True)


def options(loaders) -> list[str]:
    [choice] = loaders.LoadCheckpoint.define_schema().inputs
    return choice.options


@pytest.mark.parametrize("method", ["cfld", "mcld", "fpdm"])
def test_published_files_appear_are_converted_once_and_are_then_ours(host, loaders, method):
    loaders, folder = loaders
    states = {"cfld": cfld_states, "mcld": mcld_states, "fpdm": lambda: {"epoch": fpdm_state()}}[method]()
    files = as_torch(folder, states, {"cfld": ".bin", "mcld": ".pth", "fpdm": ".ckpt"}[method])
    name, output = f"sets/{files[0].name}", folder / f"{files[0].stem}.{method}.safetensors"
    assert [one for one in options(loaders) if one.startswith("sets/")] == [name]
    loaded, = loaders.LoadCheckpoint.execute(name).result
    assert loaded.checkpoint.meta.method == method and loaded.file == name
    host.pack(f"pgpis_models.{method}.convert").convert(files, folder / "by_hand.safetensors")
    assert output.read_bytes() == (folder / "by_hand.safetensors").read_bytes()
    written = output.stat().st_mtime_ns
    loaders.LoadCheckpoint.execute(name)
    assert output.stat().st_mtime_ns == written, "converted twice"
    assert f"sets/{output.name}" in options(loaders)
    again, = loaders.LoadCheckpoint.execute(f"sets/{output.name}").result
    theirs, ours = loaded.checkpoint.method.state_dict(), again.checkpoint.method.state_dict()
    assert theirs.keys() == ours.keys() and all(torch.equal(theirs[key], ours[key]) for key in ours)


def test_a_retrained_compiled_model_of_accelerate_loads(loaders):
    loaders, folder = loaders
    as_safetensors(folder, cfld_states(), compiled=True)
    assert [one for one in options(loaders) if one.startswith("sets/")] == ["sets/model.safetensors"]
    loaded, = loaders.LoadCheckpoint.execute("sets/model.safetensors").result
    assert loaded.checkpoint.meta.method == "cfld" and (folder / "model.cfld.safetensors").is_file()


def test_a_conversion_shows_its_progress_and_an_interruption_is_not_lost(loaders, monkeypatch):
    import time

    import comfy.model_management
    import comfy.utils
    loaders, folder = loaders
    folder.mkdir(parents=True)
    output, seen = folder / "big.safetensors", []
    monkeypatch.setattr(loaders, "WATCHED", 0.01)
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda value, total, *_, **__: seen.append((value, total)))
    with loaders.growing(output, 1000):
        (folder / "big.safetensors.ab12.part").write_bytes(b"0" * 400)
        time.sleep(0.2)
    assert (400, 1000) in seen and seen[-1] == (1000, 1000)

    def stop(*_, **__):
        raise comfy.model_management.InterruptProcessingException
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", stop)
    reached = False
    with pytest.raises(comfy.model_management.InterruptProcessingException), loaders.growing(output, 1000):
        time.sleep(0.2)
        reached = True
    assert reached, "the writing was cut off"


def test_what_cannot_be_converted_says_why_and_leaves_nothing(loaders):
    loaders, folder = loaders
    files = as_torch(folder, cfld_states())
    files[1].unlink()
    with pytest.raises(ValueError, match="no CFLD's UNet .*Put them there"):
        loaders.LoadCheckpoint.execute(f"sets/{files[0].name}")

    class Bad:
        def __reduce__(self):
            return os.mkdir, (str(folder / "made"),)
    as_torch(folder, cfld_states())
    torch.save(cfld_states()["model"] | {"decoder.more": Bad()}, files[0])
    with pytest.raises(ValueError, match="refused: it holds objects other than tensors"):
        loaders.LoadCheckpoint.execute(f"sets/{files[0].name}")
    assert sorted(path.name for path in folder.iterdir()) == ["model.bin", "model_1.bin"]


def test_files_of_other_nodes_are_not_listed(host, loaders):
    loaders, folder = loaders
    folder.mkdir(parents=True)
    torch.save({"conv1.weight": torch.zeros(1)}, folder / "body_pose_model.pth")
    assert not [one for one in options(loaders) if one.startswith("sets/")]
    names = options(loaders)
    assert "demo_cfld.safetensors" in names and "demo_base.safetensors" not in names


# --- presets ------------------------------------------------------------------------------------------------

@pytest.fixture
def presets(host):
    return host.pack("nodes.presets")


@pytest.mark.hosts
@pytest.mark.parametrize("method", ["CFLD", "MCLD", "FPDM", "QEN"])
def test_the_demos_presets_load_and_fit_together(host, presets, method):
    model, vae, loaded, clip, info = presets.LoadPreset.execute(f"Demo {method}").result
    assert loaded.checkpoint.meta.method == method.lower() and loaded.checkpoint.meta.base == "demo" and clip is None
    assert model.model.model_config.unet_config["model_channels"] == 64
    assert vae.decode(torch.zeros(1, 4, 4, 4)).shape[-3:] == (32, 32, 3)
    assert f"method: demo_{method.lower()}.safetensors" in info
    assert presets.LoadPreset.fingerprint_inputs(f"Demo {method}") == presets.LoadPreset.fingerprint_inputs(f"Demo {method}")


def test_published_weights_and_a_base_under_any_name_make_a_preset(host, loaders, presets, monkeypatch):
    """The host's own loader gets the checkpoint that holds SD1.5, whatever it is called; the weights are converted."""
    _, folder = loaders
    as_torch(folder, cfld_states())
    checkpoints = host.base / "models" / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    place = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    save_file({place: torch.zeros(320, 1024), "model.diffusion_model.input_blocks.0.0.weight": torch.zeros(320, 4, 3, 3)},
              checkpoints / "sd15.safetensors")   # it is not
    for name in ("my mix.safetensors", "other.safetensors"):
        save_file({place: torch.zeros(320, 768), "model.diffusion_model.input_blocks.0.0.weight": torch.zeros(320, 4, 3, 3),
                   "first_stage_model.decoder.conv_in.weight": torch.zeros(1)}, checkpoints / name)
    os.utime(checkpoints / "my mix.safetensors", ns=(2**62, 2**62))
    taken = []
    monkeypatch.setattr(presets.comfy.sd, "load_checkpoint_guess_config",
                        lambda path, **wanted: taken.append((path, wanted)) or ("model", None, "vae", None))
    try:
        model, vae, method, clip, info = presets.LoadPreset.execute("CFLD on SD1.5").result
        assert (model, vae, clip) == ("model", "vae", None) and method.checkpoint.meta.method == "cfld"
        assert taken[0][0].endswith("my mix.safetensors") and "base: my mix.safetensors" in info
        presets.LoadPreset.execute("CFLD on SD1.5", "other.safetensors")
        assert taken[1][0].endswith("other.safetensors") and (folder / "model.cfld.safetensors").is_file()
        with pytest.raises(FileNotFoundError, match="CFLD on SD1.5 lacks 1 of 2 things:\n- Stable Diffusion 1.5"):
            presets.LoadPreset.execute("CFLD on SD1.5", "sd15.safetensors")
    finally:
        shutil.rmtree(checkpoints)
        checkpoints.mkdir()
