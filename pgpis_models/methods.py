"""The methods of the pack by name. Their modules are imported when they are asked for.

What a method module offers to the rest: it is built from its config dataclass alone (`module(config)`), keeps it as
`config`, and names the UNet weights that belong to it in `unet_weight_shapes() -> {diffusers name: shape}`. It lists
its `guidance_modes`, the authors' first, names the scales of each in `guidance_scales(mode)`, and makes the chain of an
encoded (source, pose) in `guidance(encoded, mode, **scales)`. Buffers
that are not saved are made on the CPU by name in the constructor, so that a module built on the meta device has them.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from torch import nn

# name -> (module below this package with the network, that with the config, config class, module class)
METHODS: dict[str, tuple[str, str, str, str]] = {
    "cfld": ("cfld.model", "cfld.config", "CFLDConfig", "CFLD"),
    "fpdm": ("fpdm.model", "fpdm.config", "FPDMConfig", "FPDM"),
    "fpdm_fusion": ("fpdm.fusion", "fpdm.config", "FusionConfig", "FusionModel"),
    "mcld": ("mcld.model", "mcld.config", "MCLDConfig", "MCLD"),
    "qen": ("qen.model", "qen.config", "QENConfig", "QEN"),
}


def method_classes(name: str) -> tuple[type, type[nn.Module]]:
    """(config dataclass, module class) of a method. Raises ValueError for an unknown name."""
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}; this version of the pack knows {sorted(METHODS)}: update it if the "
                         "file is newer")
    network, sizes, config, module = METHODS[name]
    return (getattr(import_module(f".{sizes}", __package__), config),
            getattr(import_module(f".{network}", __package__), module))


def picture_encoder(name: str) -> Callable[..., Any]:
    """`encode_pictures` of a method, from `<method>/inputs.py`: photos and poses to what its `guidance` takes.

    Raises ValueError for a name that makes no pictures from a photo and a pose.
    """
    method_classes(name)
    try:
        return import_module(f".{name}.inputs", __package__).encode_pictures
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith(f"{__package__}.{name}"):
            raise   # a package that the file itself needs
        raise ValueError(f"a checkpoint of method {name!r} does not make pictures by itself; expected one of another "
                         "method, such as cfld") from None


def sequence_encoders(name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`encode_source` and `encode_poses` of a method, from `<method>/inputs.py`: the halves of `encode_pictures`, so that
    a source is read once for many chunks of poses.

    Raises ValueError for a method whose source cannot be read apart from the pose.
    """
    module = import_module(picture_encoder(name).__module__)
    if not reads_apart(name):
        raise ValueError(f"method {name!r} cannot make a sequence of one source; expected one that reads the source apart "
                         "from the poses: cfld, fpdm, mcld or qen")
    return module.encode_source, module.encode_poses


def reads_apart(name: str) -> bool:
    """Whether a method has `sequence_encoders`."""
    return hasattr(import_module(picture_encoder(name).__module__), "encode_source")


def guidance_modes() -> dict[str, dict[str, list[str]]]:
    """All guidance modes of all methods: mode -> {method: names of its scales}."""
    modes: dict[str, dict[str, list[str]]] = {}
    for name in METHODS:
        module = method_classes(name)[1]
        for mode in getattr(module, "guidance_modes", ()):
            modes.setdefault(mode, {})[name] = module.guidance_scales(mode)
    return modes


def method_name(module: nn.Module) -> str:
    """The name under which the class of a method module is known. Raises ValueError for any other module."""
    for name in METHODS:
        # Compared by its own spelling first, so that saving one method does not import all others.
        if type(module).__name__ == METHODS[name][3] and type(module) is method_classes(name)[1]:
            return name
    raise ValueError(f"{type(module).__name__} is not a method of this pack, which knows {sorted(METHODS)}; give the "
                     "method itself, without a wrapper for distributed training or compilation")
