"""Turns the authors' published checkpoint files into ours: `python -m pgpis_models.convert METHOD INPUT... OUTPUT`.

`python PATH/TO/pgpis_models/convert.py METHOD ...` does the same from any folder, also with a Python that does not look for
packages in the folder that it runs in (ComfyUI's portable one).

Each method has its own file beside this one (`convert_<method>.py` with `HELP`, `add_arguments(parser)` and
`run(arguments) -> str`); here is what they share. Published files are pickles: they are only ever read with
torch.load(weights_only=True), which refuses everything but tensors.
"""

from __future__ import annotations

import argparse
import pickle
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

if not __package__:   # run as a file: as part of the package instead, whose folder must not be searched for other packages
    HERE = Path(__file__).resolve().parent
    sys.path[:] = [str(HERE.parent), *(entry for entry in sys.path if Path(entry).resolve() != HERE)]
    from pgpis_models.convert import main
    sys.exit(main())

import torch
from torch import Tensor

from .checkpoint import what_is

CONVERTERS = ("cfld", "mcld", "fpdm")


def read_torch_file(path: str | Path) -> dict[str, Tensor]:
    """A flat state dict from a torch file, mapped and not copied into memory.

    Raises FileNotFoundError, and ValueError for files that hold anything but tensors by name, that are cut off, or
    that are of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    with open(path, "rb") as file:
        head = file.read(4)
    if head.startswith(b"\x80"):
        raise ValueError(f"{path} is a bare pickle, not the zip file that torch writes: refused, since a pickle can "
                         "run code; if it is an old torch file that you trust, load its tensors alone (weights_only) and "
                         "save them anew with torch")
    if head != b"PK\x03\x04":
        raise ValueError(f"{path} ({path.stat().st_size} bytes) is not a torch file: {what_is(path)}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        reason = str(error).strip().splitlines()
        reason = next((line.strip() for line in reason if "Unsupported" in line or "GLOBAL" in line), reason[0])
        raise ValueError(f"{path} refused: it holds objects other than tensors, and loading those can run code "
                         f"({reason}); expected a state dict as torch.save writes it") from error
    except (RuntimeError, EOFError, KeyError) as error:
        raise ValueError(f"{path} ({path.stat().st_size} bytes) cannot be read ({str(error).splitlines()[0]}); it is "
                         "cut off or damaged: download it again") from error
    if not isinstance(state, Mapping):
        raise ValueError(f"{path} holds a {type(state).__name__}; expected a dict of tensors by name")
    other = [f"{key} ({type(value).__name__})" for key, value in state.items() if not isinstance(value, Tensor)]
    if other:
        raise ValueError(f"{path}: {len(other)} of {len(state)} entries are not tensors: {', '.join(other[:10])}; "
                         "expected a flat state dict")
    return dict(state)


def strip_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The same tensors without `prefix`, if all names start with it."""
    if not all(key.startswith(prefix) for key in state):
        return dict(state)
    return {key.removeprefix(prefix): value for key, value in state.items()}


def unet_shapes(widths: tuple[int, int, int, int] = (320, 640, 1280, 1280), context: int = 768, layers: int = 2,
                channels: int = 4) -> dict[str, tuple[int, ...]]:
    """Parameter name -> shape of the Stable Diffusion 1.x UNet in diffusers' layout (the defaults: 686 of them).

    widths: of the four levels; context: cross-attention width; layers: per down block; channels: of the latents.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def weight(name: str, *shape: int, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = shape
        if bias:
            shapes[f"{name}.bias"] = shape[:1]

    def resnet(name: str, before: int, after: int) -> None:
        weight(f"{name}.norm1", before)
        weight(f"{name}.conv1", after, before, 3, 3)
        weight(f"{name}.time_emb_proj", after, 4 * widths[0])
        weight(f"{name}.norm2", after)
        weight(f"{name}.conv2", after, after, 3, 3)
        if before != after:
            weight(f"{name}.conv_shortcut", after, before, 1, 1)

    def transformer(name: str, width: int) -> None:
        weight(f"{name}.norm", width)
        weight(f"{name}.proj_in", width, width, 1, 1)
        block = f"{name}.transformer_blocks.0"
        for attention, source in (("attn1", width), ("attn2", context)):
            weight(f"{block}.{attention}.to_q", width, width, bias=False)
            weight(f"{block}.{attention}.to_k", width, source, bias=False)
            weight(f"{block}.{attention}.to_v", width, source, bias=False)
            weight(f"{block}.{attention}.to_out.0", width, width)
        for norm in ("norm1", "norm2", "norm3"):
            weight(f"{block}.{norm}", width)
        weight(f"{block}.ff.net.0.proj", 8 * width, width)
        weight(f"{block}.ff.net.2", width, 4 * width)
        weight(f"{name}.proj_out", width, width, 1, 1)

    weight("conv_in", widths[0], channels, 3, 3)
    weight("time_embedding.linear_1", 4 * widths[0], widths[0])
    weight("time_embedding.linear_2", 4 * widths[0], 4 * widths[0])
    skips, width = [widths[0]], widths[0]
    for index, after in enumerate(widths):
        for layer in range(layers):
            resnet(f"down_blocks.{index}.resnets.{layer}", width, after)
            if index < 3:
                transformer(f"down_blocks.{index}.attentions.{layer}", after)
            width = after
            skips.append(width)
        if index < 3:
            weight(f"down_blocks.{index}.downsamplers.0.conv", width, width, 3, 3)
            skips.append(width)
    resnet("mid_block.resnets.0", width, width)
    transformer("mid_block.attentions.0", width)
    resnet("mid_block.resnets.1", width, width)
    for index, after in enumerate(reversed(widths)):
        for layer in range(layers + 1):
            resnet(f"up_blocks.{index}.resnets.{layer}", width + skips.pop(), after)
            if index > 0:
                transformer(f"up_blocks.{index}.attentions.{layer}", after)
            width = after
        if index < 3:
            weight(f"up_blocks.{index}.upsamplers.0.conv", width, width, 3, 3)
    weight("conv_norm_out", widths[0])
    weight("conv_out", channels, widths[0], 3, 3)
    return shapes


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 0, or 2 after an error message."""
    parser = argparse.ArgumentParser(prog="python -m pgpis_models.convert", description=__doc__.split("\n")[0])
    methods = parser.add_subparsers(dest="method", required=True, metavar="METHOD")
    for name in CONVERTERS:
        converter = import_module(f".convert_{name}", __package__)
        method = methods.add_parser(name, help=converter.HELP, description=converter.HELP)
        converter.add_arguments(method)
        method.set_defaults(run=converter.run)
    chosen = parser.parse_args(arguments)
    try:
        print(chosen.run(chosen))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    # Under -m this file is the module __main__; the converters import it by its own name, so run that one.
    from .convert import main as canonical_main
    sys.exit(canonical_main())
