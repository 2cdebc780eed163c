"""Weights as their authors publish or retrain them, known by the names in them, and turned into checkpoints of ours once.

A file is looked into without loading it: names stand in a torch file's small table of contents, which is searched as bytes,
and in the header of safetensors. What converts them reads tensors alone (see `<method>/convert.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path

from ..checkpoint import read_metadata
from ..unet.weights import open_safetensors
from .torch_archive import TorchArchive
from .torch_states import COMPILED, is_safetensors

TORCH_ENDINGS = (".bin", ".ckpt", ".pt", ".pth")
ENDINGS = (".safetensors", *TORCH_ENDINGS)
OWN, LORA = "ours", "a LoRA of ours"


@dataclass(frozen=True)
class Kind:
    """One published file. method: whose. what: in words. has: pieces of names that all are in it. lacks: pieces that are
    not. first: whether it stands for its set in a list."""

    method: str
    what: str
    has: tuple[bytes, ...]
    lacks: tuple[bytes, ...] = ()
    first: bool = False


KINDS: dict[str, Kind] = {
    "fpdm": Kind("fpdm", "FPDM's diffusion model (stage 2)", (b"sd_model.", b"src_image_encoder."), first=True),
    "fpdm_fusion": Kind("fpdm_fusion", "FPDM's fusion model (stage 1)", (b"combiner.", b"img_encoder."), (b"sd_model.",),
                        first=True),
    "cfld": Kind("cfld", "CFLD's conditioning model (pytorch_model.bin)", (b"appearance_encoder.", b"decoder."), first=True),
    "cfld_unet": Kind("cfld", "CFLD's UNet (pytorch_model_1.bin)", (b"model.down_blocks.", b"model.mid_block."),
                      (b"sd_model.",)),
    "mcld": Kind("mcld", "MCLD's denoising UNet (denoising_unet.pth)", (b".to_k_ip.weight", b"down_blocks."), first=True),
    "mcld_reference": Kind("mcld", "MCLD's reference UNet (reference_unet.pth)", (b"down_blocks.", b"mid_block."),
                           (b".to_k_ip.", b"model.down_blocks.", b"unet.down_blocks.")),
    "mcld_guider": Kind("mcld", "MCLD's pose guider (pose_guider.pth)", (b"conv_in.weight", b"blocks.0.weight"),
                        (b"down_blocks.",)),
    "mcld_projector": Kind("mcld", "MCLD's face projector (image_proj_model.pth)", (b"latents", b"proj_in.weight"),
                           (b"down_blocks.", b"blocks.0.")),
}
SETS: dict[str, tuple[str, ...]] = {"fpdm": ("fpdm",), "fpdm_fusion": ("fpdm_fusion",), "cfld": ("cfld", "cfld_unet"),
                                    "mcld": ("mcld", "mcld_reference", "mcld_guider", "mcld_projector")}


def kind_of(path: Path) -> str | None:
    """The kind of a published file, OWN for a checkpoint of this pack, LORA for a LoRA of it, None for anything else. Fast:
    files are looked into once as long as they stay the same."""
    try:
        state = path.stat()
        return _kind(str(path), state.st_mtime_ns, state.st_size)
    except OSError:
        return None


@lru_cache(maxsize=1024)
def _kind(path: str, _changed: int, _size: int) -> str | None:
    names = _names(Path(path))
    if names in (None, OWN, LORA):
        return names
    for name, kind in KINDS.items():
        if all(piece in names for piece in kind.has) and not any(piece in names for piece in kind.lacks):
            return name
    return None


def _names(path: Path) -> bytes | str | None:
    """The bytes among which a file's names of tensors are; OWN or LORA for one of this pack; None where they
    cannot be told."""
    try:
        if is_safetensors(path):
            with open_safetensors(path) as file:
                metadata = file.metadata() or {}
                if any(key.startswith("pgpis.") for key in metadata):
                    return LORA if metadata.get("pgpis.kind") == '"lora"' else OWN
                names = "\n".join(file.keys()).encode()
        else:
            with TorchArchive(path) as archive:
                names = archive.table()
    except (ValueError, OSError):
        return None
    return names.replace(f"{COMPILED}.".encode(), b"")


def listed(path: Path) -> bool:
    """Whether a file may be chosen as a checkpoint: all of ours and safetensors that are not known, and of published files
    the one that stands for its set."""
    kind = kind_of(path)
    if kind is None:
        return path.suffix.lower() not in TORCH_ENDINGS
    return kind == OWN or kind != LORA and KINDS[kind].first


@dataclass(frozen=True)
class Published:
    """A set of published files and the checkpoint of ours that they become."""

    method: str
    files: tuple[Path, ...]
    output: Path

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self.files)

    def converted(self) -> bool:
        """Whether that was done, and the files were not changed since."""
        if not self.output.is_file():
            return False
        newest = max(path.stat().st_mtime_ns for path in self.files)
        try:
            return self.output.stat().st_mtime_ns >= newest and read_metadata(self.output).method == self.method
        except ValueError:
            return False   # another file of that name: made anew

    def convert(self) -> str:
        """Writes the checkpoint, whole or not at all; the originals stay. Returns a sentence about it."""
        name = self.method.removesuffix("_fusion")
        return import_module(f"..{name}.convert", __package__).convert(list(self.files), self.output)


def published_set(path: Path, beside: Iterable[Path] | None = None) -> Published | None:
    """The set that the file `path` stands for; None when it is of no published kind.

    Its other files are looked for beside it, by what is in them. beside: those to look at; all of its folder when None.
    Raises ValueError for a file that does not stand for its set, and when files are missing or there are several of a kind.
    """
    kind = kind_of(path)
    if kind in (None, OWN, LORA):
        return None
    if not KINDS[kind].first:
        first = KINDS[KINDS[kind].method].what
        raise ValueError(f"{path.name} is {KINDS[kind].what}; expected the file that stands for the set: {first}. Choose "
                         "that")
    method = KINDS[kind].method
    around = [other for other in (beside if beside is not None else sorted(path.parent.iterdir()))
              if other != path and other.suffix.lower() in ENDINGS]
    files, lacking, doubled = [path], [], []
    for needed in SETS[method][1:]:
        found = [other for other in around if kind_of(other) == needed]
        files += found[:1]
        lacking += [KINDS[needed].what] if not found else []
        doubled += [f"{', '.join(other.name for other in found)} ({KINDS[needed].what})"] if len(found) > 1 else []
    if lacking:
        raise ValueError(f"{path} is {KINDS[kind].what}, but beside it there is no {', no '.join(lacking)}; expected all "
                         f"{len(SETS[method])} files of {method} in one folder. Put them there")
    if doubled:
        raise ValueError(f"beside {path} there are several files of a kind: {'; '.join(doubled)}; expected one of each. "
                         "Give each set a folder of its own")
    return Published(method, tuple(files), path.with_name(f"{path.stem}.{method}.safetensors"))
