"""Nodes that hold the frames of a sequence still, with any sampler: noise that follows the body, and the first frame seen by
all."""

from __future__ import annotations

from dataclasses import dataclass

from comfy_api.latest import io
from torch import Tensor

from ..pgpis_models.framing.limbs import surface_of_pose
from ..pgpis_models.surface.carrying import carried_by
from ..pgpis_models.surface.densepose import IUV
from .binding.first_frame import hold_first_frame
from .binding.noise import start_noise
from .binding.passport import check_layout
from .embedding import PERSON_TOOLTIP, shown_poses
from .inputs import checked_densepose, watched
from .schema import aliases
from .types import DenseposeType, PoseKeypointType

STRIDE = 8   # pixels of a picture per cell of its latents


@dataclass(frozen=True, eq=False)
class BodyNoise:
    """NOISE of the host: one frame of noise, carried along by the body. surfaces: one per frame, or poses whose size is not
    known before the latents are."""

    seed: int
    surfaces: tuple

    def generate_noise(self, input_latent: dict) -> Tensor:
        """(F, 4, h, w) for latents (F, 4, h, w). Raises ValueError for another number of them."""
        samples, numbers = input_latent["samples"], input_latent.get("batch_index")
        check_layout(samples.shape)
        wanted = list(range(len(samples)) if numbers is None else numbers)
        if max(wanted) >= len(self.surfaces) or (numbers is None and len(samples) != len(self.surfaces)):
            raise ValueError(f"the noise follows {len(self.surfaces)} frames, the sampler runs {len(samples)} latents; "
                             "expected as many. Connect the frames that the embedding node has")
        size = tuple(samples.shape[-2:])
        picture = tuple(side * STRIDE for side in size)
        carried = carried_by((one if isinstance(one, IUV) else surface_of_pose(one, picture)
                              for one in watched(self.surfaces)), size)
        noise = start_noise(self.seed, wanted, tuple(samples.shape[1:]), carried.frames(wanted))
        return noise.to(samples.dtype)


class BodyNoiseNode(io.ComfyNode):
    """Frames of DENSEPOSE or POSE_KEYPOINT -> NOISE for SamplerCustomAdvanced."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPISBodyNoise", display_name="Noise Following the Body", category="PGPIS/sampling",
            **aliases("sequence", "animation", "flicker", "temporal", "consistent", "noise warp", "frames"),
            description="Noise for the frames of a sequence, in place of RandomNoise: the first frame's noise sticks to the "
                        "body and moves with it, and the ground keeps its own, so that what the pose leaves open changes "
                        "less from frame to frame. The first frame is what RandomNoise of this seed makes of one picture. "
                        "With Hold First Frame the frames hold still best. Take a sampler that adds no noise at its steps "
                        "(euler, ddim, dpmpp_2m): others draw that anew for each frame.",
            inputs=[io.Int.Input("noise_seed", default=0, min=0, max=0xffffffffffffffff, control_after_generate=True,
                                 tooltip="Seed of the noise."),
                    DenseposeType.Input("densepose", optional=True, tooltip="DensePose of the frames, in order, as many as "
                                        "latents: the surface that carries the noise."),
                    PoseKeypointType.Input("pose", optional=True, tooltip="Without densepose: poses of the frames, whose "
                                           "limbs carry the noise."),
                    io.Int.Input("person", default=-1, min=-1, max=99, optional=True, tooltip=PERSON_TOOLTIP)],
            outputs=[io.Noise.Output(display_name="noise", tooltip="For SamplerCustomAdvanced: one noise per frame, each "
                                     "of mean 0 and variance 1.")])

    @classmethod
    def execute(cls, noise_seed, densepose=None, pose=None, person=-1) -> io.NodeOutput:
        if densepose is None and pose is None:
            raise ValueError("Noise Following the Body has neither densepose nor pose; expected the frames of a sequence at "
                             "one of them. Connect Pose Mannequin, Read IUV, Load Pose or any node that gives them")
        surfaces = checked_densepose(densepose) if densepose is not None else shown_poses(pose, person, "hold")
        return io.NodeOutput(BodyNoise(noise_seed, tuple(surfaces)))


class HoldFirstFrame(io.ComfyNode):
    """MODEL -> MODEL whose pictures see the first one of their batch."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPISHoldFirstFrame", display_name="Hold First Frame", category="PGPIS/sampling",
            **aliases("sequence", "animation", "flicker", "temporal", "consistent", "cross frame attention", "frames"),
            description="Frames of a batch see the first one: its keys and values join those of each self-attention, so "
                        "that what it made up (a hidden garment, a face from the side) stays. The first is as it was. Any "
                        "method; between the base MODEL and Apply PGPIS, or behind it. Of the host's context windows each "
                        "sees its own first frame; Pose Sequence Sampler carries the first one along.",
            inputs=[io.Model.Input("model", tooltip="The MODEL, of the Stable Diffusion 1.x or 2.x kind."),
                    io.Float.Input("strength", default=1.0, min=0.0, max=2.0, step=0.05, tooltip="How far: 0 is off, 1 "
                                   "joins the first frame's keys to each frame's own, 2 puts them in their place, which "
                                   "flickers least; in between a mixture.")],
            outputs=[io.Model.Output(display_name="model", tooltip="The MODEL with the first frame held.")])

    @classmethod
    def execute(cls, model, strength) -> io.NodeOutput:
        return io.NodeOutput(hold_first_frame(model, strength))


NODES = [BodyNoiseNode, HoldFirstFrame]
