"""What travels between the nodes of this pack."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from hashlib import sha256
from typing import Any

import comfy.model_management
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import Tensor

from ..pgpis_models.checkpoint import Checkpoint
from ..pgpis_models.unet.guidance import Guidance
from .binding.passport import Origin

MethodType = io.Custom("PGPIS_METHOD")
CondType = io.Custom("PGPIS_COND")
DenseposeType = io.Custom("DENSEPOSE")          # tuple of pgpis_models.surface.densepose.IUV, one per picture
DIGESTED = 16   # numbers of each tensor that go into the digest of a checkpoint
FaceEmbedsType = io.Custom("FACE_EMBEDS")       # FaceEmbeds
FrameType = io.Custom("PGPIS_FRAME")            # tuple of pgpis_models.framing.boxes.Frame, one per picture
PoseKeypointType = io.Custom("POSE_KEYPOINT")  # the type of controlnet_aux's nodes and of the host's own


@dataclass(frozen=True, eq=False)
class Method:
    """PGPIS_METHOD: a loaded checkpoint. The host moves its encoders like any model, through `patcher`.

    side_weights: by diffusers parameter name, of a network that runs as a UNet of the host (MCLD's reference network)
    until that has taken them over.
    """

    checkpoint: Checkpoint
    patcher: ModelPatcher
    file: str
    side_weights: dict[str, Tensor] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For messages: file, method and base."""
        meta = self.checkpoint.meta
        return f"{self.file} ({meta.method} on base {meta.base})"

    @cached_property
    def origin(self) -> Origin:
        """What CONDITIONING and MODEL carry of this checkpoint, so that only those of one go together.

        The digest is of the metadata and of names, shapes and first numbers of all tensors: equal for equal files, other for
        another training, and made in a moment.
        """
        digest = sha256(json.dumps(asdict(self.checkpoint.meta), sort_keys=True, default=str).encode())
        named = [(f"unet.{name}", value) for name, value in self.checkpoint.unet_weights.items()]
        for name, value in [*named, *self.checkpoint.method.state_dict().items()]:
            digest.update(f"{name} {tuple(value.shape)}".encode())
            digest.update(value.detach().reshape(-1)[:DIGESTED].float().cpu().numpy().tobytes())
        return Origin(self.name, digest.hexdigest())

    def load(self):
        """Has the host load the encoders; returns the device to put their inputs on."""
        comfy.model_management.load_models_gpu([self.patcher], force_full_load=True)
        device = self.patcher.load_device
        if any(parameter.device != device for parameter in self.patcher.model.parameters()):
            self.patcher.model.to(device)   # --novram leaves weights behind that only the host's own layers fetch
        return device


@dataclass(frozen=True, eq=False)
class Cond:
    """PGPIS_COND: one or more encoded (source, pose) pairs, on the CPU.

    encoded: what the method's encode gave. batch: number of pairs. latent_size: (height, width) of the latents.
    """

    method: Method
    encoded: Any
    batch: int
    latent_size: tuple[int, int]

    def guidance(self, mode: str | None = None, **scales: float) -> Guidance:
        """The method's guidance chain; its default mode when None."""
        module = self.method.checkpoint.method
        return module.guidance(self.encoded, mode or module.guidance_modes[0], **scales)


@dataclass(frozen=True, eq=False)
class FaceEmbeds:
    """FACE_EMBEDS: vectors (B, W) float32 on the CPU, one per picture; zeros where there is no face."""

    vectors: Tensor


def on_cpu(value: Any) -> Any:
    """The same structure of dataclasses, dicts and tuples with its tensors detached and on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu")
    if isinstance(value, dict):
        return {key: on_cpu(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(on_cpu(item) for item in value)
    if is_dataclass(value):
        return replace(value, **{item.name: on_cpu(getattr(value, item.name)) for item in fields(value)})
    return value
