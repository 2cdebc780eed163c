"""Nodes that load files: a trained method, and the demo's base models."""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path

import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import io
from torch import nn

from ..pgpis_models.checkpoint import load_checkpoint
from ..pgpis_models.files.presets import RELEASES
from ..pgpis_models.files.published import ENDINGS, listed, published_set
from ..pgpis_models.unet.base import BaseSizes, read_sizes
from ..pgpis_models.unet.control_branch import ControlBranch
from ..pgpis_models.unet.weights import difference, read_floats, shapes_of
from .binding.demo_latents import DemoLatents
from .schema import aliases
from .types import Method, MethodType

FOLDER, LORAS = "pgpis", "loras"
DEMO_FOLDER = Path(__file__).resolve().parent.parent / "models" / "demo"
DEMO_BASE, DEMO_VAE = "demo_base.safetensors", "demo_vae.safetensors"
EXTENSIONS = set(ENDINGS)
WATCHED = 0.5   # seconds between looks at a file that is being written
log = logging.getLogger(__name__)
NO_METHOD = (DEMO_BASE, DEMO_VAE, "_adapter.safetensors")   # the last is what training a base leaves beside it


def register_folder() -> None:
    """Makes the host know models/pgpis, and the demo files inside the pack, beside paths given elsewhere for `pgpis`; its
    LoRA loaders list the demo's."""
    for path in (Path(folder_paths.models_dir) / FOLDER, DEMO_FOLDER):
        folder_paths.add_model_folder_path(FOLDER, str(path))
    folder_paths.add_model_folder_path(LORAS, str(DEMO_FOLDER.with_name(LORAS)))
    paths, _ = folder_paths.folder_names_and_paths[FOLDER]
    folder_paths.folder_names_and_paths[FOLDER] = (paths, EXTENSIONS)  # a new folder would list every file


def _path_of(name: str) -> Path:
    path = folder_paths.get_full_path(FOLDER, name)
    if path is None:
        raise FileNotFoundError(
            f"no file {name} in {', '.join(folder_paths.get_folder_paths(FOLDER))}. Put it into one of these folders; the "
            f"demo files come with a clone of the pack's repository, and one by one from {RELEASES}")
    return Path(path)


def method_files() -> list[str]:
    """The files that may be chosen as a method: ours, and published ones that are converted when they are loaded."""
    names = [name for name in folder_paths.get_filename_list(FOLDER) if not name.endswith(NO_METHOD)]
    return [name for name in names if (path := folder_paths.get_full_path(FOLDER, name)) and listed(Path(path))]


def own_file(path: Path) -> Path:
    """The file itself, or of published weights the checkpoint of ours that is made of them, once, beside them.

    Raises ValueError when the files are not what they should be; nothing half-written is left then.
    """
    found = published_set(path)
    if found is None:
        return path
    if not found.converted():
        with growing(found.output, found.size):
            log.info("converted %s", found.convert())
    return found.output


@contextmanager
def growing(path: Path, size: int):
    """A progress bar for a file of about `size` bytes that is written beside `path`, under a name that begins like it. An
    interruption meanwhile is raised when the file is whole."""
    bar, done, stopped = comfy.utils.ProgressBar(size), threading.Event(), []

    def watch() -> None:
        while not done.wait(WATCHED):
            try:
                parts = [part.stat().st_size for part in path.parent.glob(f"{path.name}.*.part")]
                bar.update_absolute(min(max(parts, default=0), size), size)
            except OSError:   # renamed between the two looks
                continue
            except comfy.model_management.InterruptProcessingException as error:
                stopped.append(error)
                return
    thread = threading.Thread(target=copy_context().run, args=(watch,), daemon=True)   # the host asks who is running
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    if stopped:
        raise stopped[0]
    bar.update_absolute(size, size)


def load_method(path: Path, name: str) -> Method:
    """The PGPIS_METHOD of a file of ours. name: for messages."""
    checkpoint = load_checkpoint(path)
    # Networks that will run as a UNet of the host are not moved with the encoders.
    take = getattr(checkpoint.method, "take_reference", None)
    side_weights = take() if take else {}
    patcher = comfy.model_patcher.ModelPatcher(encoders_of(checkpoint.method.requires_grad_(False)),
                                               comfy.model_management.get_torch_device(),
                                               comfy.model_management.unet_offload_device())
    return Method(checkpoint, patcher, name, side_weights)


class LoadCheckpoint(io.ComfyNode):
    """File -> PGPIS_METHOD."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPISLoadCheckpoint", display_name="Load PGPIS Checkpoint", category="PGPIS/loaders",
            **aliases("pose transfer", "person", "cfld", "mcld", "fpdm", "qen", "safetensors"),
            description="Loads a trained pose transfer method (its encoders and the UNet weights that belong to it) from "
                        "models/pgpis. The file says itself which method it is and which base model it needs.",
            inputs=[io.Combo.Input("file", options=method_files(), tooltip="A file in models/pgpis: a checkpoint of this "
                                   "pack, or weights as their authors publish or retrain them, all files of a set in one "
                                   "folder. Those are converted once, beside them.")],
            outputs=[MethodType.Output(display_name="method", tooltip="The method, for an embedding node of its kind.")])

    @classmethod
    def validate_inputs(cls, file: str | None) -> bool | str:
        """Here, so that a file that is gone gets a sentence; None where a link gives the name."""
        try:
            return file is None or bool(_path_of(file))
        except FileNotFoundError as error:
            return str(error)

    @classmethod
    def fingerprint_inputs(cls, file: str) -> tuple:
        path = _path_of(file)
        return str(path), path.stat().st_mtime_ns

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        return io.NodeOutput(load_method(own_file(_path_of(file)), file))


def encoders_of(method: nn.Module) -> nn.Module:
    """What the host moves to the device to encode: all of a method but its control branch, which samples on a network of the
    host's own (`binding/control.py`) and would otherwise lie in memory twice."""
    children = dict(method.named_children())
    if not any(isinstance(child, ControlBranch) for child in children.values()):
        return method
    return nn.ModuleDict({name: child for name, child in children.items() if not isinstance(child, ControlBranch)})


class LoadDemoBase(io.ComfyNode):
    """The demo's UNet and autoencoder -> MODEL, VAE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPISLoadDemoBase", display_name="Load PGPIS Demo Base", category="PGPIS/loaders",
            **aliases("mannequin", "pose transfer demo"),
            description="Loads the tiny base model of the demo: a UNet of the SD1.5 topology and an autoencoder, trained on "
                        "drawn mannequins. It runs on a CPU in seconds. A git clone of the pack has its files; the "
                        "releases page has them for an install from the registry.",
            inputs=[],
            outputs=[io.Model.Output(display_name="model", tooltip="The demo's UNet, for Apply PGPIS or PGPIS Guider with a "
                                     "checkpoint whose base is 'demo'."),
                     io.Vae.Output(display_name="vae", tooltip="The demo's autoencoder, for VAE Decode.")])

    @classmethod
    def fingerprint_inputs(cls) -> tuple:
        """Training may replace the files while the host runs."""
        paths = [_path_of(name) for name in (DEMO_BASE, DEMO_VAE)]
        return tuple((str(path), path.stat().st_mtime_ns) for path in paths)

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(native_unet(_path_of(DEMO_BASE)), native_vae(_path_of(DEMO_VAE)))


def native_unet(path: Path, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """A base file of ours (diffusers names, sizes in its metadata) as the host's MODEL, in float32.

    disable_dynamic: what the host says where it loads the file again for another device; the MODEL is never dynamic. Raises
    ValueError when keys are missing, unexpected or of another shape.
    """
    sizes = read_sizes(path)
    config = comfy.supported_models.SD15(unet_config(sizes))
    config.unet_config |= unet_config(sizes)  # SD15 sets heads of its own
    config.set_inference_dtype(torch.float32, None)
    kind = {"epsilon": "EPS", "v_prediction": "V_PREDICTION"}[sizes.prediction]
    model = comfy.model_base.BaseModel(config, comfy.model_base.ModelType[kind])
    state = read_floats(path)
    names = comfy.utils.unet_to_diffusers(config.unet_config)
    own = shapes_of(model.diffusion_model.state_dict())
    wrong = difference({ours: own[native] for ours, native in names.items() if native in own}, shapes_of(state))
    if wrong:
        raise ValueError(f"{path} does not hold the UNet that its metadata describes: {wrong}; download it again")
    model.diffusion_model.load_state_dict({names[name]: value for name, value in state.items()})
    model.latent_format = DemoLatents()
    patcher = comfy.model_patcher.ModelPatcher(model, comfy.model_management.get_torch_device(),
                                               comfy.model_management.unet_offload_device())
    patcher.cached_patcher_init = (native_unet, (path,))   # newer hosts load it so for another device
    return patcher


def native_vae(path: Path) -> comfy.sd.VAE:
    """An autoencoder file in the host's TAESD layout as the host's VAE."""
    vae = comfy.sd.VAE(sd=read_floats(path))
    vae.throw_exception_if_invalid()
    vae.patcher.cached_patcher_init = (_vae_patcher, (path,))
    return vae


def _vae_patcher(path: Path, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """As `native_unet`, of the autoencoder."""
    return native_vae(path).patcher


def unet_config(sizes: BaseSizes) -> dict:
    """The host's UNet configuration for our sizes. Raises ValueError for widths that are not multiples of the first."""
    first, *_ = widths = sizes.block_out_channels
    if len(widths) != 4 or any(width % first for width in widths):
        raise ValueError(f"base widths {tuple(widths)}; expected four, each a multiple of the first")
    layers = sizes.layers_per_block
    return dict(image_size=32, in_channels=sizes.in_channels, out_channels=sizes.out_channels, model_channels=first,
                num_res_blocks=[layers] * 4, channel_mult=[width // first for width in widths],
                transformer_depth=[1] * (3 * layers) + [0] * layers,
                transformer_depth_output=[1] * (3 * (layers + 1)) + [0] * (layers + 1), transformer_depth_middle=1,
                use_spatial_transformer=True, use_linear_in_transformer=sizes.linear_projection,
                context_dim=sizes.cross_attention_dim, num_heads=-1 if sizes.head_dim else sizes.heads,
                num_head_channels=sizes.head_dim or -1, attn_precision=torch.float32 if sizes.upcast_attention else None,
                adm_in_channels=None, use_checkpoint=False, legacy=False, use_temporal_attention=False,
                use_temporal_resblock=False)


NODES = [LoadCheckpoint, LoadDemoBase]
