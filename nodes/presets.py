"""Load Pose Transfer: all that a pose transfer needs, from whatever the files are called."""

from __future__ import annotations

from pathlib import Path

import comfy.clip_vision
import comfy.sd
import comfy.utils
import folder_paths
from comfy_api.latest import io, ui

from ..pgpis_models.files.presets import PRESETS, Found, base_of, find, pages
from .loaders import DEMO_FOLDER, FOLDER, load_method, native_unet, native_vae, own_file
from .schema import aliases, extra
from .types import MethodType

ANY_BASE = "(find one)"
BASE_FOLDERS = ("checkpoints", "diffusion_models")


def _files(folder: str) -> list[Path]:
    """The files of one of the host's folders, wherever that is, the newest first. Of a name that is there twice both."""
    names = folder_paths.get_filename_list(folder)
    roots = dict.fromkeys(folder_paths.get_folder_paths(folder))
    paths = [path for name in names for root in roots if (path := Path(root) / name).is_file()]
    return sorted(paths, key=lambda path: (-path.stat().st_mtime_ns, str(path)))


def _base_files() -> list[str]:
    return sorted(name for folder in BASE_FOLDERS for name in folder_paths.get_filename_list(folder)
                  if name.lower().endswith(".safetensors"))


def found_files(preset: str, base_model: str = ANY_BASE) -> Found:
    """The files of a preset in the host's folders. The demo's are those of the pack, where it has them; of others the newest
    that fits is taken. base_model: the one base file to look at, by its name in the list."""
    own = _files(FOLDER)
    if PRESETS[preset].base == "demo":
        own.sort(key=lambda path: DEMO_FOLDER not in path.parents)
    bases = [path for folder in BASE_FOLDERS for path in _files(folder)]
    if base_model != ANY_BASE:
        chosen = [path for folder in BASE_FOLDERS if (path := folder_paths.get_full_path(folder, base_model))]
        bases = [Path(path) for path in chosen]
    return find(preset, own, bases, _files("vae"), _files("clip_vision"))


class LoadPreset(io.ComfyNode):
    """Preset -> MODEL, VAE, PGPIS_METHOD, CLIP_VISION."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPISLoadPreset", display_name="Load Pose Transfer", category="PGPIS/loaders",
            **aliases("person", "pose guided", "checkpoint", "cfld", "mcld", "fpdm", "qen"),
            description="Loads all that a pose transfer needs: base model, autoencoder, method and, where the method wants "
                        "it, CLIP. Files are found by what is in them, whatever they are called; published weights are "
                        "converted once. What is missing is listed at once, with where to get it and where to put it.",
            inputs=[io.Combo.Input("preset", options=list(PRESETS), default=next(iter(PRESETS)),   # pages: web/presets.js
                                   **extra(pgpis_pages={name: pages(name) for name in PRESETS}), tooltip="The demo's "
                                   "methods draw mannequins and run on a CPU; their files are in a clone of the pack, not "
                                   "in the registry's archive. The others make photos and need downloads. The button below "
                                   "opens the pages."),
                    io.Combo.Input("base_model", options=[ANY_BASE, *_base_files()], default=ANY_BASE, optional=True,
                                   tooltip="Which base to take where there are several that fit, such as a finetune of "
                                   "SD1.5; (find one) takes the newest.")],
            outputs=[io.Model.Output(display_name="model", tooltip="The base model."),
                     io.Vae.Output(display_name="vae", tooltip="Its autoencoder."),
                     MethodType.Output(display_name="method", tooltip="The method, for Pose Transfer or an embedding node "
                                       "of its kind."),
                     io.ClipVision.Output(display_name="clip_vision", tooltip="CLIP ViT-L/14 for MCLD's published weights; "
                                          "nothing for the others, which bring their own encoders."),
                     io.String.Output(display_name="info", tooltip="Which files were taken.")])

    @classmethod
    def validate_inputs(cls, preset: str | None = None, base_model: str | None = ANY_BASE) -> bool | str:
        """Here, so that a base that is gone gets a sentence, with all else that the preset lacks; None where a link gives
        the name."""
        if preset is not None and preset not in PRESETS:
            return f"no preset {preset!r}; expected one of {', '.join(PRESETS)}. Choose one of the list"
        if base_model in (None, ANY_BASE, *_base_files()):
            return True
        places = ", ".join(path for folder in BASE_FOLDERS for path in folder_paths.get_folder_paths(folder))
        said = (f"no base model {base_model} in {places}; expected one that is there. Choose {ANY_BASE}, which takes any "
                "that fits, or another, or put the file there and press R")
        lacks = found_files(preset).lacks(preset) if preset else ""
        return f"{said}. With {ANY_BASE} {lacks}" if lacks else said

    @classmethod
    def fingerprint_inputs(cls, preset: str, base_model: str = ANY_BASE) -> tuple:
        found = found_files(preset, base_model)
        return (*((role, str(path), path.stat().st_mtime_ns) for role, path in sorted(found.files.items())),
                *map(str, found.missing), *found.broken)

    @classmethod
    def execute(cls, preset: str, base_model: str = ANY_BASE) -> io.NodeOutput:
        found = found_files(preset, base_model)
        found.check(preset)
        files = found.files
        method = load_method(own_file(files["method"]), files["method"].name)
        clip = comfy.clip_vision.load(str(files["clip"])) if "clip" in files else None
        if PRESETS[preset].base == "demo":
            model, vae = native_unet(files["base"]), native_vae(files["vae"])
        else:
            model, vae = load_base(files["base"], files["vae"])
        info = "\n".join(f"{role}: {path.name}" for role, path in files.items())
        return io.NodeOutput(model, vae, method, clip, info, ui=ui.PreviewText(info))


def load_base(base: Path, vae: Path) -> tuple:
    """(MODEL, VAE) by the host's own loaders: of one checkpoint, or of a UNet and an autoencoder."""
    whole = base_of(base).whole
    if whole and base == vae:
        model, _, autoencoder, *_ = comfy.sd.load_checkpoint_guess_config(str(base), output_vae=True, output_clip=False)
        return model, autoencoder
    model = comfy.sd.load_checkpoint_guess_config(str(base), output_vae=False, output_clip=False)[0] if whole else \
        comfy.sd.load_diffusion_model(str(base))
    autoencoder = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(vae)))
    autoencoder.throw_exception_if_invalid()
    return model, autoencoder


NODES = [LoadPreset]
