"""An in-process ComfyUI with this pack linked in, and tiny models of both kinds. Skipped when no ComfyUI is found."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import os
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

PACK = Path(__file__).resolve().parents[2]
SIZE = (128, 96)   # of the demo's presets here: a quarter of their work
COMFY = Path(os.environ.get("COMFYUI_PATH") or Path.home() / "comfy" / "ComfyUI")


def pytest_collection_modifyitems(items):
    if not (COMFY / "comfy" / "sd.py").is_file():
        reason = f"no ComfyUI at {COMFY}; set COMFYUI_PATH to a ComfyUI folder to run the host tests"
        for item in items:
            if Path(__file__).parent in Path(item.fspath).parents:
                item.add_marker(pytest.mark.skip(reason=reason))


def _loaded_pack(folder: Path) -> str:
    """Name under which the host has imported the pack linked at `folder`."""
    names = [name for name, module in sys.modules.items() if getattr(module, "__file__", None)
             and Path(module.__file__) == folder / "__init__.py"]
    assert names, "the host did not import the pack; see its log above"
    return names[0]


@pytest.fixture(scope="session")
def host(tmp_path_factory):
    """The host: .pack(name) imports a module of the pack, .run(prompt) executes an API-format prompt, .base: its folder,
    .object_info(): what it says of its nodes at that address."""
    base = tmp_path_factory.mktemp("comfy")
    for name in ("custom_nodes", "models/pgpis", "models/loras", "input", "output", "temp", "user"):
        (base / name).mkdir(parents=True, exist_ok=True)
    link = base / "custom_nodes" / "pgpis"
    link.symlink_to(PACK, target_is_directory=True)
    argv, folder = sys.argv, Path.cwd()
    sys.argv = ["main.py", "--cpu", "--base-directory", str(base), "--disable-api-nodes",
                "--database-url", "sqlite:///:memory:"]
    sys.path.insert(0, str(COMFY))
    os.chdir(COMFY)
    try:
        import comfy.options
        comfy.options.enable_args_parsing()
        # In this order: the host's `nodes` makes `utils` mean another module.
        _, execution, nodes, server = (importlib.import_module(name) for name in
                                       ("utils.extra_config", "execution", "nodes", "server"))
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        server.PromptServer(loop)
        loop.run_until_complete(nodes.init_extra_nodes(init_custom_nodes=True, init_api_nodes=False))
    finally:
        sys.argv = argv
        os.chdir(folder)
    name = _loaded_pack(link)
    client = SimpleNamespace(client_id=None, last_node_id=None, last_prompt_id=None, sockets_metadata={},
                             send_sync=lambda *args, **kwargs: None)

    def run(prompt: dict) -> SimpleNamespace:
        known = inspect.signature(execution.PromptExecutor).parameters  # 0.3.64 has no cache_args yet
        sizes = {"cache_args": defaultdict(int)} if "cache_args" in known else {}   # newer hosts ask for more keys
        executor = execution.PromptExecutor(client, cache_type=execution.CacheType.CLASSIC, **sizes)
        valid = loop.run_until_complete(execution.validate_prompt("test", prompt, None))
        if not valid[0]:
            return SimpleNamespace(success=False, outputs={}, errors=valid[1:])
        executor.execute(prompt, "test", {"client_id": "test"}, valid[2])
        messages = [data for event, data in executor.status_messages if event == "execution_error"]
        return SimpleNamespace(success=executor.success, outputs=executor.history_result["outputs"], errors=messages)

    def object_info() -> dict:
        [answer] = [route.handler for route in server.PromptServer.instance.routes
                    if (route.method, route.path) == ("GET", "/object_info")]
        return json.loads(loop.run_until_complete(answer(None)).text)

    return SimpleNamespace(pack=lambda module="": importlib.import_module(name + (f".{module}" if module else "")),
                           run=run, base=base, nodes=nodes, name=name, object_info=object_info)


@pytest.fixture(scope="session")
def demo(host, tiny):
    """Tiny random files in models/pgpis: cfld_tiny.safetensors, demo_base.safetensors, demo_vae.safetensors."""
    import dataclasses
    base, autoencoder, cfld, checkpoint, configs = (host.pack(f"pgpis_models.{name}") for name in (
        "unet.base", "unet.autoencoder", "cfld.model", "checkpoint", "cfld.config"))
    folder = host.base / "models" / "pgpis"
    torch.manual_seed(21)
    config = dataclasses.replace(configs.CONFIGS["demo"], unet_widths=tiny.widths[:3], prompt_width=tiny.context,
                                 image_size=SIZE, pose_unshuffle=16)
    method = cfld.CFLD(config).requires_grad_(False)
    for value in method.parameters():  # convolutions that start at zero would hide the biases
        if not value.any():
            torch.nn.init.normal_(value, std=0.1)
    weights = {name: value for name, value in tiny.unet(3).state_dict().items() if name in method.unet_weight_shapes()}
    checkpoint.save_checkpoint(folder / "cfld_tiny.safetensors", method, weights, base="demo", step=0, data="none",
                               licence="none")
    sizes = base.BaseSizes(tiny.widths, heads=tiny.heads, cross_attention_dim=tiny.context, prediction="v_prediction")
    base.save_unet(folder / "demo_base.safetensors", tiny.unet(), sizes, step=0, data="none")
    autoencoder.save_vae(folder / "demo_vae.safetensors", autoencoder.tiny(8), step=0, data="none")
    return SimpleNamespace(folder=folder, config=config, method=method, weights=weights, size=SIZE)


@pytest.fixture(scope="session")
def tiny_method(host, demo, tiny):
    """Saves a method of the demo's preset on the tiny base, with random weights that all matter, and loads it as a node
    does: tiny_method("qen", "QEN", "qen_tiny", seed, unet_heads=8) -> PGPIS_METHOD."""
    import dataclasses

    def make(file: str, kind: str, name: str, seed: int, **sizes):
        module, preset = host.pack(f"pgpis_models.{file}.model"), host.pack(f"pgpis_models.{file}.config").CONFIGS["demo"]
        if file == "fpdm":
            small = {"source_size": SIZE, "source_swin": dataclasses.replace(preset.source_swin, image=SIZE)}
        else:
            small = {"pose_unshuffle": 16}
        torch.manual_seed(seed)
        method = getattr(module, kind)(dataclasses.replace(preset, unet_widths=tiny.widths, image_size=SIZE,
                                                           **small | sizes))
        for value in method.requires_grad_(False).eval().parameters():   # nothing may hide behind weights that start at zero
            value += 0.05 * torch.randn_like(value)
        weights = {key: value for key, value in tiny.unet(3).state_dict().items() if key in method.unet_weight_shapes()}
        file_name = f"{name}.safetensors"
        host.pack("pgpis_models.checkpoint").save_checkpoint(demo.folder / file_name, method, weights, base="demo", step=0,
                                                             data="none", licence="none")
        return host.pack("nodes.loaders").LoadCheckpoint.execute(file_name).result[0]
    return make


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A server with the demo models of the pack, or random ones of their layout while it has none."""
    from tests.host.http_host import add_missing_methods, add_random_demo, demo_is_trained, make_base, serve
    base = make_base(tmp_path_factory.mktemp("server"))
    if not demo_is_trained():
        add_random_demo(base)
    add_missing_methods(base)
    with serve(base) as running:
        yield running


# --- tiny models --------------------------------------------------------------------------------------------

@pytest.fixture(scope="session")
def tiny(host):
    """Makes the same tiny UNet twice: .unet() for diffusers, .model() for the host."""
    import comfy.model_base
    import comfy.model_management as management
    import comfy.model_patcher
    import comfy.supported_models
    import comfy.utils
    import diffusers

    width, heads, context = 32, 8, 64

    def unet(seed: int = 0):
        torch.manual_seed(seed)
        return diffusers.UNet2DConditionModel(
            sample_size=16, block_out_channels=(width, 2 * width, 4 * width, 4 * width), cross_attention_dim=context,
            attention_head_dim=heads, norm_num_groups=32,
            down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3).eval().requires_grad_(False)

    def model(source=None, dtype=torch.float32, prediction="EPS"):
        config = comfy.supported_models.SD15(dict(
            image_size=32, in_channels=4, out_channels=4, model_channels=width, num_res_blocks=[2] * 4,
            channel_mult=[1, 2, 4, 4], transformer_depth=[1, 1, 1, 1, 1, 1, 0, 0],
            transformer_depth_output=[1] * 9 + [0] * 3, transformer_depth_middle=1, use_spatial_transformer=True,
            use_linear_in_transformer=False, context_dim=context, adm_in_channels=None, use_checkpoint=False, legacy=False,
            use_temporal_attention=False, use_temporal_resblock=False))
        config.set_inference_dtype(dtype, None)
        base = comfy.model_base.BaseModel(config, comfy.model_base.ModelType[prediction])
        names = comfy.utils.unet_to_diffusers(config.unet_config)
        state = (source or unet()).state_dict()
        base.diffusion_model.load_state_dict({names[name]: value.to(dtype) for name, value in state.items()})
        return comfy.model_patcher.ModelPatcher(base, management.get_torch_device(), management.unet_offload_device())

    return SimpleNamespace(unet=unet, model=model, width=width, widths=(width, 2 * width, 4 * width, 4 * width),
                           heads=heads, context=context, latent=(16, 12))
