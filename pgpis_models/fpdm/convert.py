"""FPDM's published files, Lightning `.ckpt` of stage 1 or 2, to ours.

A Lightning file is a pickle that holds more than tensors (hyper-parameters as OmegaConf objects, optimizer states), so
`torch.load(weights_only=True)` refuses it. `read_lightning` reads it without running anything of it: names of classes
and functions are looked up in a short table of our own, and all others become inert stand-ins.
"""

from __future__ import annotations

import argparse
import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checkpoint import Metadata, write_checkpoint
from ..command.torch_files import is_safetensors, plain_names, read_weights
from ..parts.vision_tower import DINOV2_UNUSED, published_tower_name, published_tower_shape
from ..poses.keypoints import checked_size, read_size
from ..unet.weights import difference, shapes_of, what_is
from .config import CONFIGS, FUSION_CONFIGS, FPDMConfig, FusionConfig
from .drawing import CANVAS, PHOTO_CANVAS
from .fusion import FusionModel
from .model import FPDM

HELP = "FPDM: a Lightning .ckpt of stage 1 (fusion model) or stage 2 (diffusion model)"
LICENCE = ("converted from the release of FPDM (github.com/dhlee-work/FPDM, MIT licence); trained on DeepFashion, whose "
           "images are for non-commercial research")
# Known keys that are not needed: the same tensors under a second name, the base's autoencoder, and parts that only files
# of older commits of the authors' code have.
ALIASES: Mapping[str, str] = {"pose_encoder.": "img_encoder.", "fusion_model.pose_encoder.": "fusion_model.img_encoder.",
                              "sd_model.unet.": "unet."}
IGNORED = ("vae.", "fusion_model.attention.", "attention.", "sd_model.fusionpatch_proj_model.",
           *(f"src_image_encoder.{name}" for name in DINOV2_UNUSED))


# --- reading without running --------------------------------------------------------------------------------

class Inert:
    """Stands in for any class or function that a pickle names: takes whatever it is given and does nothing."""

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Inert:
        return object.__new__(cls)

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        pass

    def _nothing(self, *_args: Any, **_kwargs: Any) -> None:
        pass

    __call__ = __setstate__ = __setitem__ = append = extend = update = add = _nothing


def _tensor(storage: Any, offset: int, size: Sequence[int], stride: Sequence[int], *_rest: Any) -> Any:
    """What torch._utils._rebuild_tensor_v2 does, within the bounds of the storage."""
    if not isinstance(storage, Tensor):
        return Inert()
    numbers = (offset, *size, *stride)
    if any(not isinstance(n, int) or n < 0 for n in numbers) or len(size) != len(stride):
        raise ValueError(f"a tensor of size {tuple(size)}, stride {tuple(stride)} and offset {offset}")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if all(size) else -1
    if last >= storage.numel():
        raise ValueError(f"a tensor that reaches to entry {last} of a storage of {storage.numel()}")
    return storage.as_strided(tuple(size), tuple(stride), offset)


def _parameter(data: Any, *_rest: Any) -> Any:
    return data


_STORAGES = {("torch", f"{name}Storage"): dtype for name, dtype in (
    ("Float", torch.float32), ("Half", torch.float16), ("BFloat16", torch.bfloat16), ("Double", torch.float64),
    ("Long", torch.int64), ("Int", torch.int32), ("Short", torch.int16), ("Char", torch.int8), ("Byte", torch.uint8),
    ("Bool", torch.bool))}
_KNOWN: Mapping[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): _tensor, ("torch._utils", "_rebuild_parameter"): _parameter,
    ("collections", "OrderedDict"): OrderedDict, **_STORAGES}


class _Reader(pickle.Unpickler):
    """Builds dicts, lists, numbers, strings and tensors; everything else becomes Inert. Imports nothing."""

    def __init__(self, file: Any, storages: _Storages) -> None:
        super().__init__(file, encoding="utf-8")
        self.storages = storages

    def find_class(self, module: str, name: str) -> Any:
        known = _KNOWN.get((module, name))
        return type("Inert", (Inert,), {}) if known is None else known

    def persistent_load(self, pid: Any) -> Any:
        if not (isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage" and isinstance(pid[2], str)
                and isinstance(pid[4], int)):
            raise pickle.UnpicklingError(f"a persistent id {str(pid)[:80]!r}; expected a torch storage")
        return self.storages.get(pid[2], pid[1], pid[4])


class _Storages:
    """The files `<root>/data/<key>` of the zip, mapped and not read: optimizer states cost nothing."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, root: str) -> None:
        self.path, self.archive, self.root = path, archive, root
        self.made: dict[str, Tensor] = {}
        # One map for all: each would keep a file open, and optimizer states have thousands of storages. Mode "c": writable
        # in memory, as torch wants it, and never written to the file.
        self.mapped = np.memmap(path, dtype=np.uint8, mode="c")

    def get(self, key: str, dtype: Any, count: int) -> Any:
        if not isinstance(dtype, torch.dtype):
            return Inert()
        if key not in self.made:
            info = self.archive.getinfo(f"{self.root}data/{key}")
            size = count * dtype.itemsize
            if info.compress_type != zipfile.ZIP_STORED or info.file_size < size:
                raise ValueError(f"storage {key} of {info.file_size} bytes, compression {info.compress_type}; expected "
                                 f"{size} bytes or more, not compressed")
            with open(self.path, "rb") as file:  # the local header's lengths may differ from the directory's
                file.seek(info.header_offset)
                name, extra = struct.unpack("<26xHH", file.read(30))
            start = info.header_offset + 30 + name + extra
            if count == 0:
                self.made[key] = torch.empty(0, dtype=dtype)
            else:
                mapped = self.mapped[start:start + size]
                self.made[key] = torch.from_numpy(mapped).view(dtype) if start % dtype.itemsize == 0 else \
                    torch.from_numpy(np.array(mapped)).view(dtype)
        if self.made[key].dtype != dtype:
            raise ValueError(f"storage {key} is named as {dtype} and as {self.made[key].dtype}")
        return self.made[key]


def read_lightning(path: str | Path) -> dict[str, Tensor]:
    """The state dict of a Lightning `.ckpt` (or of a plain torch file), mapped into memory; nothing in it is run.

    Raises FileNotFoundError, and ValueError for files that are not torch's zip files, are cut off, or hold no state dict
    of tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
            if len(names) != 1:
                raise ValueError(f"{path} is a zip file without one data.pkl: not written by torch.save; choose the .ckpt")
            root = names[0].removesuffix("data.pkl")
            if archive.NameToInfo.get(f"{root}byteorder") and archive.read(f"{root}byteorder") != b"little":
                raise ValueError(f"{path} was written on a big-endian machine; save it anew on a common one")
            content = _unpickled(path, archive, names[0])
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} ({path.stat().st_size} bytes) is not a whole torch file ({error}): {what_is(path)}") \
            from error
    state = content.get("state_dict", content) if isinstance(content, Mapping) else content
    if not isinstance(state, Mapping) or not state:
        raise ValueError(f"{path} holds no state_dict; expected a Lightning checkpoint of FPDM")
    other = [str(key) for key, value in state.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if other:
        raise ValueError(f"{path}: {len(other)} of {len(state)} entries of its state_dict are not tensors by name: "
                         f"{', '.join(other[:10])}")
    return dict(state)


def _unpickled(path: Path, archive: zipfile.ZipFile, name: str) -> Any:
    """What the pickle `name` of the zip says, read by _Reader. ValueError for whatever a broken one brings about."""
    try:
        with archive.open(name) as file:
            return _Reader(file, _Storages(path, archive, name.removesuffix("data.pkl"))).load()
    except (pickle.UnpicklingError, EOFError, LookupError, AttributeError, TypeError, ValueError, ArithmeticError,
            RuntimeError, struct.error, zlib.error) as error:
        raise ValueError(f"{path} cannot be read ({type(error).__name__}: {error}); it is damaged or of another kind: "
                         "download it again") from error


# --- names --------------------------------------------------------------------------------------------------

def published_fusion_names(config: FusionConfig = FUSION_CONFIGS["full"]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Our parameter of the FusionModel -> (published key in a stage 1 file, published shape)."""
    with torch.device("meta"):
        module = FusionModel(config)
    return _names(module.state_dict(), "clip", {"tower.": "img_encoder.vision_model.", "projection.":
                                                "img_encoder.visual_projection.", "combiner.": "combiner."})


def published_names(config: FPDMConfig = CONFIGS["full"]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Our parameter of FPDM -> (published key in a stage 2 file, published shape)."""
    with torch.device("meta"):
        module = FPDM(config)
    names = {f"fusion.{name}": (f"fusion_model.{key}", shape)
             for name, (key, shape) in published_fusion_names(config.fusion).items()}
    rest = {name: value for name, value in module.state_dict().items() if name not in names}
    return names | _names(rest, "dinov2", {
        "source_tower.": "src_image_encoder.", "source_mlp.": "sd_model.srcimage_proj_model.",
        "pose_guider.": "sd_model.pose_t_proj.", "class_mlp.": "unet.class_embedding."})


def _names(state: Mapping[str, Tensor], kind: str,
           prefixes: Mapping[str, str]) -> dict[str, tuple[str, tuple[int, ...]]]:
    names = {}
    for name, value in state.items():
        prefix = next(prefix for prefix in prefixes if name.startswith(prefix))
        rest, shape = name.removeprefix(prefix), tuple(value.shape)
        if prefix.endswith("tower."):
            rest, shape = published_tower_name(rest, kind), published_tower_shape(rest, shape, kind)
        names[name] = (prefixes[prefix] + rest, shape)
    return names


def required_keys(config: FPDMConfig | FusionConfig) -> dict[str, tuple[int, ...]]:
    """Published key -> shape of all that a file of this configuration must hold, without aliases."""
    if isinstance(config, FusionConfig):
        return dict(published_fusion_names(config).values())
    with torch.device("meta"):
        unet = FPDM(config).unet_weight_shapes()
    return dict(published_names(config).values()) | {f"unet.{name}": shape for name, shape in unet.items()}


# --- converting ---------------------------------------------------------------------------------------------

def convert(inputs: Sequence[str | Path], output: str | Path, *, dtype: torch.dtype | None = None, step: int = 0,
            config: FPDMConfig = CONFIGS["full"], pose_canvas: tuple[int, int] | None = None) -> str:
    """Writes one checkpoint of ours from one published file of either stage, and returns a sentence about it.

    A stage 2 file holds everything (stage 1 and DINOv2 too); its autoencoder is that of the base and stays out. dtype:
    of the stored tensors, as published when None. config: for files of other sizes than the authors'. pose_canvas: (height,
    width) in pixels that the checkpoint will draw poses on, when not the config's. Raises ValueError when the file is not
    what it should be, and for a canvas with stage 1, which draws nothing by itself.
    """
    if len(inputs) != 1:
        raise ValueError(f"{len(inputs)} input files; expected one .ckpt, of stage 1 or of stage 2")
    path = Path(inputs[0])
    read = read_weights(path) if is_safetensors(path) else plain_names(read_lightning(path), path)
    state = without_aliases(read)
    if any(key.startswith("unet.") for key in state):
        config = config if pose_canvas is None else replace(config, pose_canvas=checked_size(pose_canvas, "pose_canvas"))
        method, sizes, names = "fpdm", config, published_names(config)
    elif any(key.startswith("combiner.") for key in state):
        if pose_canvas is not None:
            raise ValueError(f"{path} is of stage 1, whose checkpoint has no canvas of poses; expected a file of stage 2. "
                             "Leave --pose-canvas out")
        method, sizes, names = "fpdm_fusion", config.fusion, published_fusion_names(config.fusion)
    else:
        raise ValueError(f"{path} is of neither stage of FPDM: its {len(state)} keys start with {list(state)[:3]}; "
                         "expected combiner. (stage 1) or unet. (stage 2)")
    required = required_keys(sizes)
    left = sorted(set(state) - set(required))   # of another commit of the authors' code; what is needed is insisted on
    wrong = difference(required, shapes_of(state), extras=True)
    if wrong:
        raise ValueError(f"{path} does not fit {method}: {wrong}")
    integer = [key for key in required if not state[key].is_floating_point()]
    if integer:
        raise ValueError(f"{path}: {len(integer)} weights are not floating point numbers: {', '.join(integer[:10])}")
    with torch.device("meta"):
        shapes = shapes_of((FPDM if method == "fpdm" else FusionModel)(sizes).state_dict())
    ours = {name: state[key].reshape(shapes[name]) for name, (key, _) in names.items()}
    unet = {} if method == "fpdm_fusion" else {key.removeprefix("unet."): state[key] for key in required
                                               if key.startswith("unet.") and "class_embedding" not in key}
    meta = Metadata(method, asdict(sizes), base="sd21", step=step, data="deepfashion", licence=LICENCE)
    write_checkpoint(output, ours, unet, meta=meta, dtype=dtype)
    more = f"; left out {len(left)} keys that the released code does not have: {', '.join(left[:10])}" if left else ""
    return (f"{output}: {len(ours)} parameters of {method} and {len(unet)} UNet weights, "
            f"{Path(output).stat().st_size / 2 ** 20:.0f} MiB{more}")


def without_aliases(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict without second names and parts that are not needed. Raises ValueError when two names that should
    mean one tensor hold different ones: then the file is not what this converter knows."""
    kept, differing = {}, []
    for key, value in state.items():
        alias = next((prefix for prefix in ALIASES if key.startswith(prefix)), None)
        if alias is not None:
            twin = state.get(ALIASES[alias] + key.removeprefix(alias))
            if twin is None or twin.data_ptr() != value.data_ptr() and not torch.equal(twin, value):
                differing.append(key)
        elif not key.startswith(IGNORED):
            kept[key] = value
    if differing:
        raise ValueError(f"{len(differing)} keys should equal others and do not ({', '.join(differing[:10])}); expected "
                         f"{ALIASES}: this file is of another version of FPDM")
    return kept


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `python -m pgpis_models.convert fpdm`."""
    parser.add_argument("inputs", nargs=1, metavar="INPUT", help="the .ckpt of stage 1 or stage 2")
    parser.add_argument("output", help="the .safetensors file to write, for ComfyUI's models/pgpis")
    parser.add_argument("--half", action="store_true", help="store in float16: half the size")
    parser.add_argument("--step", type=int, default=0, help="training step to note in the file (default 0, unknown)")
    parser.add_argument("--pose-canvas", default="", metavar="HxW", help="stage 2: height x width in pixels that poses are "
                        f"drawn on, which makes lines bold or fine; default {_text(CANVAS)}, as in the authors' training of "
                        f"stage 2; {_text(PHOTO_CANVAS)}, as in their test script")


def run(arguments: argparse.Namespace) -> str:
    """`convert` with the command line's arguments."""
    return convert(arguments.inputs, arguments.output, dtype=torch.float16 if arguments.half else None,
                   step=arguments.step,
                   pose_canvas=read_size(arguments.pose_canvas, "--pose-canvas") if arguments.pose_canvas else None)


def _text(size: tuple[int, int]) -> str:
    """(height, width) as the command line writes it."""
    return f"{size[0]}x{size[1]}"
