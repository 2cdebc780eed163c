"""Which files make a pose transfer, where they come from, and which files on disk they are: told by what is in them.

Names say nothing here: checkpoints of ours by their metadata, published weights and bases by the names and shapes of their
tensors, read from the files' headers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from ..checkpoint import Metadata, read_metadata
from ..unet.limits import FLOATS
from ..unet.weights import open_safetensors
from .published import KINDS, OWN, kind_of, published_set

RELEASES = "https://github.com/comfyui-pgpis/comfyui-pgpis/releases"
VELOCITY = 0.09   # deviation of one bias by which hosts tell Stable Diffusion 2.1 (768, v-prediction) from its base variant


@dataclass(frozen=True)
class Need:
    """One thing that a preset needs. what: in words. page, folder: where it is, and where it goes below the host's folder.
    size: how large it is; empty where nobody knows."""

    what: str
    page: str
    folder: str
    size: str = ""

    def __str__(self) -> str:
        return f"{self.what}{f', {self.size}' * bool(self.size)}: from {self.page} into {self.folder}"


@dataclass(frozen=True)
class Preset:
    """A pose transfer that runs when all of `needs`, by role, is there. Roles are method, base, vae and clip."""

    method: str
    base: str
    needs: Mapping[str, Need]


# Sizes are those of the pages; where a page states none, that of the weights that the authors' code makes, in float32.
SD15 = Need("Stable Diffusion 1.5 (v1-5-pruned-emaonly.safetensors or any finetune of it)",
            "https://huggingface.co/Comfy-Org/stable-diffusion-v1-5-archive", "models/checkpoints", "4.3 GB (fp16: 2.1 GB)")
SD21 = Need("Stable Diffusion 2.1 (v2-1_768-ema-pruned.safetensors, v-prediction; not 2.1-base)",
            "https://huggingface.co/webui/stable-diffusion-2-1", "models/checkpoints", "5.2 GB (fp16: 2.6 GB)")
VAE = Need("the autoencoder of Stable Diffusion (vae-ft-mse-840000-ema-pruned.safetensors), for a base that brings none",
           "https://huggingface.co/stabilityai/sd-vae-ft-mse-original", "models/vae", "0.3 GB")
CLIP = Need("CLIP ViT-L/14 (model.safetensors; its image encoder is that of sd-image-variations)",
            "https://huggingface.co/openai/clip-vit-large-patch14", "models/clip_vision", "1.7 GB")


def _demo(method: str, size: int) -> Preset:
    return Preset(method, "demo", {
        "method": Need(f"the demo's {method.upper()} (demo_{method}.safetensors)", RELEASES, "models/pgpis", f"{size} MB"),
        "base": Need("the demo's base (demo_base.safetensors)", RELEASES, "models/pgpis", "9 MB"),
        "vae": Need("the demo's autoencoder (demo_vae.safetensors)", RELEASES, "models/pgpis", "5 MB")})


PRESETS: Mapping[str, Preset] = {
    "Demo CFLD": _demo("cfld", 15), "Demo MCLD": _demo("mcld", 23), "Demo FPDM": _demo("fpdm", 16),
    "Demo QEN": _demo("qen", 18),
    "CFLD on SD1.5": Preset("cfld", "sd15", {
        "method": Need("CFLD's weights (pytorch_model.bin and pytorch_model_1.bin; MIT)", "the Google Drive linked at "
                       "https://github.com/YanzuoLu/CFLD", "models/pgpis/cfld", "4.4 GB"), "base": SD15, "vae": VAE}),
    "MCLD on SD1.5": Preset("mcld", "sd15", {
        "method": Need("MCLD's weights (denoising_unet.pth, reference_unet.pth, pose_guider.pth, image_proj_model.pth; MIT)",
                       "https://huggingface.co/Lotior/mcld", "models/pgpis/mcld", "7.3 GB"),
        "base": SD15, "vae": VAE, "clip": CLIP}),
    "FPDM on SD2.1": Preset("fpdm", "sd21", {
        "method": Need("FPDM's weights of stage 2 (one .ckpt; its authors state no licence)", "the Google Drive linked at "
                       "https://github.com/dhlee-work/FPDM", "models/pgpis/fpdm", "6.3 GB, or more with what training left "
                       "in it"), "base": SD21, "vae": VAE}),
    "QEN on SD1.5": Preset("qen", "sd15", {
        "method": Need("a checkpoint of QEN", "your own training (training/configs/deepfashion/qen.yaml): its authors "
                       "published none", "models/pgpis"), "base": SD15, "vae": VAE}),
}


def pages(name: str) -> list[dict[str, str]]:
    """Where to get what a preset needs: what, page (an http or https address) and folder of each of its needs. Leaves out
    what no page has, such as a checkpoint of one's own training."""
    found = ((need, re.search(r"https?://\S+", need.page)) for need in PRESETS[name].needs.values())
    return [{"what": f"{need.what}{f', {need.size}' * bool(need.size)}", "page": address[0], "folder": need.folder}
            for need, address in found if address]


@dataclass
class Found:
    """The files of a preset by role, what is missing, and why a set of files that was found cannot be taken. needed: how
    many things the preset needs."""

    needed: int
    files: dict[str, Path] = field(default_factory=dict)
    missing: list[Need] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def lacks(self, name: str) -> str:
        """All that the preset `name` lacks and what to do, in words; "" where nothing is missing."""
        if not (self.missing or self.broken):
            return ""
        lines = "".join(f"\n- {item}" for item in (*self.missing, *self.broken))
        return (f"{name} lacks {len(self.missing) + len(self.broken)} of {self.needed} things:{lines}\n"
                "Put the files there and press R; their names do not matter")

    def check(self, name: str) -> None:
        """Raises FileNotFoundError with what `lacks` says."""
        said = self.lacks(name)
        if said:
            raise FileNotFoundError(said)


def find(name: str, pgpis: Sequence[Path], bases: Sequence[Path], vaes: Sequence[Path] = (),
         clips: Sequence[Path] = ()) -> Found:
    """The files of a preset among those given, each list in the order in which they are preferred.

    pgpis: of models/pgpis. bases: of models/checkpoints and models/diffusion_models. vaes, clips: of models/vae and
    models/clip_vision.
    """
    preset = PRESETS[name]
    found = Found(len(preset.needs) - (preset.base != "demo"))   # other bases bring an autoencoder, as a rule
    method = _method(preset, pgpis, found)
    if preset.base == "demo":
        found.files |= _first("base", pgpis, lambda path: _demo_base_fits(path, method))
        found.files |= _first("vae", pgpis, lambda path: _own_kind(path) == '"vae"')
    else:
        found.files |= _first("base", bases, lambda path: (base_of(path) or NO_BASE).kind == preset.base)
        if "base" in found.files:
            found.files |= {"vae": found.files["base"]} if base_of(found.files["base"]).vae else \
                _first("vae", vaes, is_vae)
    if "clip" in preset.needs:
        found.files |= _first("clip", clips, is_clip)
    for role, need in preset.needs.items():
        if role in found.files or (role == "method" and found.broken):
            continue
        if role != "vae" or preset.base == "demo" or "base" in found.files:
            found.missing.append(need)
    return found


def _first(role: str, paths: Iterable[Path], fits) -> dict[str, Path]:
    path = next((path for path in paths if fits(path)), None)
    return {} if path is None else {role: path}


def _method(preset: Preset, paths: Sequence[Path], found: Found) -> Path | None:
    """The method's file: a checkpoint of ours, else published files that become one."""
    def fits(path: Path) -> bool:
        meta = own_metadata(path)
        return meta is not None and (meta.method, meta.base) == (preset.method, preset.base)
    fitting = [path for path in paths if kind_of(path) == OWN and fits(path)]
    # one that was distilled to few steps is for settings that the workflows of a preset have not
    own = next((path for path in fitting if not own_metadata(path).sampling), next(iter(fitting), None))
    if own is None and preset.base != "demo":
        for path in paths:
            kind = KINDS.get(kind_of(path) or "")
            if kind is None or kind.method != preset.method or not kind.first:
                continue
            try:
                own = path if published_set(path) else None
                found.broken.clear()
                break
            except ValueError as error:
                found.broken.append(str(error))
    if own is not None:
        found.files["method"] = own
    return own


def own_metadata(path: Path) -> Metadata | None:
    """What a checkpoint of this pack says of itself; None for any other file."""
    try:
        return read_metadata(path)
    except (ValueError, OSError):
        return None


def _own_kind(path: Path) -> str:
    try:
        with open_safetensors(path) as file:
            return (file.metadata() or {}).get("pgpis.kind", "")
    except (ValueError, OSError):
        return ""


def _demo_base_fits(path: Path, method: Path | None) -> bool:
    """Whether a file is a base of ours with all UNet weights of the method, in their shapes."""
    if _own_kind(path) != '"base"':
        return False
    if method is None:
        return True
    with open_safetensors(path) as file, open_safetensors(method) as other:
        keys = set(file.keys())
        return all(key.removeprefix("unet.") in keys and tuple(other.get_slice(key).get_shape())
                   == tuple(file.get_slice(key.removeprefix("unet.")).get_shape())
                   for key in other.keys() if key.startswith("unet."))


# --- bases, autoencoders, CLIP ------------------------------------------------------------------------------

@dataclass(frozen=True)
class BaseFile:
    """A UNet of Stable Diffusion. kind: sd15, sd21, or sd21-base. whole: a checkpoint with all parts. vae: it brings one."""

    kind: str
    whole: bool
    vae: bool


NO_BASE = BaseFile("", False, False)
SMALL_FLOATS = ("F8_E4M3", "F8_E5M2")   # types of tensors beside FLOATS in which hosts load a base
NATIVE, DIFFUSERS = "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", \
    "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"
LAST_BIAS = {NATIVE: "output_blocks.11.1.transformer_blocks.0.norm1.bias",
             DIFFUSERS: "up_blocks.3.attentions.2.transformer_blocks.0.norm1.bias"}
FIRST = {NATIVE: "input_blocks.0.0.weight", DIFFUSERS: "conv_in.weight"}


def base_of(path: Path) -> BaseFile | None:
    """What base a .safetensors file holds, by the shapes of its cross-attention and of its first layer; None for any other
    file. Inpainting variants, whose first layer takes more, are none."""
    try:
        state = path.stat()
        return _base(str(path), state.st_mtime_ns, state.st_size)
    except OSError:
        return None


@lru_cache(maxsize=1024)
def _base(path: str, _changed: int, _size: int) -> BaseFile | None:
    if not path.lower().endswith(".safetensors"):
        return None
    try:
        with open_safetensors(path) as file:
            keys = set(file.keys())
            whole = f"model.diffusion_model.{NATIVE}" in keys
            prefix = "model.diffusion_model." if whole else ""
            place = next((place for place in (NATIVE, DIFFUSERS) if prefix + place in keys), None)
            if place is None or prefix + FIRST[place] not in keys:
                return None
            first = tuple(file.get_slice(prefix + FIRST[place]).get_shape())
            kind = {(320, 768): "sd15", (320, 1024): "sd21"}.get(tuple(file.get_slice(prefix + place).get_shape()))
            if kind is None or first != (320, 4, 3, 3):
                return None
            if kind == "sd21":
                bias, key = None, prefix + LAST_BIAS[place]
                if key in keys and file.get_slice(key).get_dtype() in (*FLOATS, *SMALL_FLOATS):
                    bias = file.get_tensor(key).float()
                kind = "sd21" if bias is not None and float(bias.std(unbiased=False)) > VELOCITY else "sd21-base"
            return BaseFile(kind, whole, "first_stage_model.decoder.conv_in.weight" in keys)
    except (ValueError, OSError):
        return None


def is_vae(path: Path) -> bool:
    """Whether a file is an autoencoder of Stable Diffusion 1.x or 2.x, with 4 latent channels and full width."""
    return (_shape(path, "decoder.conv_in.weight") == (512, 4, 3, 3)
            and _shape(path, "encoder.conv_in.weight") == (128, 3, 3, 3))


def is_clip(path: Path) -> bool:
    """Whether a file holds the image encoder of CLIP ViT-L/14 at 224 pixels, with its projection."""
    return (_shape(path, "visual_projection.weight") == (768, 1024)
            and _shape(path, "vision_model.embeddings.position_embedding.weight") == (257, 1024))


def _shape(path: Path, key: str) -> tuple[int, ...] | None:
    if path.suffix.lower() != ".safetensors":
        return None
    try:
        with open_safetensors(path) as file:
            return tuple(file.get_slice(key).get_shape()) if key in set(file.keys()) else None
    except (ValueError, OSError):
        return None
