"""The node that makes the frames of a sequence: one source, many poses, a few at a time."""

from __future__ import annotations

from dataclasses import replace

import comfy.model_management
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from comfy_api.latest import io
from torch import Tensor

from ..pgpis_models.framing.limbs import surface_of_pose
from ..pgpis_models.methods import sequence_encoders
from ..pgpis_models.noise.carried import Carried
from ..pgpis_models.poses.formats import EMPTY
from ..pgpis_models.surface.carrying import carried_by
from ..pgpis_models.unet.autoencoder import VAE_STRIDE
from ..pgpis_models.unet.guidance import Guidance
from ..pgpis_models.unet.injections import harmonise
from .binding.first_frame import strength_on
from .binding.guider import ChainGuider
from .binding.model import apply_injections, conditionings
from .binding.noise import StepNoise, start_noise, with_step_noise
from .binding.weights import check_prediction
from .embedding import draws_hands, shown_poses, warn_of_limits
from .fusion import EMPTY_TOOLTIP
from .inputs import checked_densepose, resized, rgb, watched
from .pose.frames import FOLLOW_TOOLTIP, followed_frames
from .schema import ADVANCED, aliases
from .types import Cond, DenseposeType, MethodType, PoseKeypointType, on_cpu

SAME, OWN, BODY = "same for all frames", "new for each frame", "follows the body"
LARGEST_CHUNK = 16   # frames at once; more gain no speed
MEMORY_MARGIN = 1.5  # the host's own, where it decides how many terms to batch


class PoseSequenceSampler(io.ComfyNode):
    """MODEL, PGPIS_METHOD, one source IMAGE and N frames of POSE_KEYPOINT -> N latents."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPISPoseSequenceSampler", display_name="Pose Sequence Sampler", category="PGPIS/sampling",
            **aliases("animation", "person video", "skeleton", "frames", "openpose", "dance"),
            description="Makes one person in a sequence of poses, such as a video of sign language. The source is encoded "
                        "once; poses are encoded and sampled in chunks, so that memory does not grow with the number of "
                        "frames. Takes the place of embedding node, Apply PGPIS and KSampler; LoRAs and other patches on "
                        "the MODEL keep working, and so does Hold First Frame, whose first frame goes along with every "
                        "chunk. Decode with VAE Decode, show with Save Animated WEBP.",
            inputs=[io.Model.Input("model", tooltip="The base model that the checkpoint was trained on, or a finetune or "
                                   "LoRA of it."),
                    MethodType.Input("method", tooltip="A checkpoint from Load PGPIS Checkpoint: FPDM, CFLD or QEN (MCLD "
                                     "takes DensePose rather than keypoints)."),
                    io.Image.Input("source", tooltip="One photo of the person."),
                    PoseKeypointType.Input("pose", tooltip="The frames, in order."),
                    io.Int.Input("person", default=-1, min=-1, max=99, tooltip=FOLLOW_TOOLTIP),
                    io.Combo.Input("empty_frames", options=list(EMPTY), default="hold", tooltip=EMPTY_TOOLTIP),
                    io.Int.Input("seed", default=0, min=0, max=0xffffffffffffffff, control_after_generate=True,
                                 tooltip="Seed of the noise."),
                    io.Combo.Input("noise", options=[SAME, OWN, BODY], default=SAME, tooltip="Noise of the start, and "
                                   "of the steps of samplers that add some (ancestral, SDE and others). Same: what the pose "
                                   "leaves open stays the same from frame to frame. New: each frame has its own. Follows "
                                   "the body: the first frame's sticks to the body and moves with it, by its limbs, or by "
                                   "densepose where that is connected."),
                    io.Int.Input("steps", default=20, min=1, max=10000, tooltip="Sampling steps of each frame."),
                    io.Float.Input("cfg", default=2.0, min=0.0, max=100.0, step=0.1, tooltip="Weight of source and pose "
                                   "against neither."),
                    io.Combo.Input("sampler_name", options=comfy.samplers.SAMPLER_NAMES, default="euler",
                                   tooltip="The host's sampler."),
                    io.Combo.Input("scheduler", options=comfy.samplers.SCHEDULER_NAMES, default="normal",
                                   tooltip="The host's noise schedule."),
                    io.Int.Input("chunk", **ADVANCED, default=0, min=0, max=4096,
                                 tooltip="Frames made at once; 0 takes as many as fit "
                                 f"into the free memory, {LARGEST_CHUNK} at most. It changes speed and memory, not the "
                                 "result (dpm_adaptive excepted, which chooses its steps by the frames of a chunk)."),
                    DenseposeType.Input("densepose", optional=True, tooltip="DensePose of the frames, one for each, for "
                                        "noise that follows the body.")],
            outputs=[io.Latent.Output(display_name="latent", tooltip="One latent per frame, in order.")])

    @classmethod
    def execute(cls, model, method, source, pose, person, empty_frames, seed, noise, steps, cfg, sampler_name, scheduler,
                chunk, densepose=None) -> io.NodeOutput:
        if method.checkpoint.meta.method == "mcld":
            raise ValueError(f"{method.name} takes DensePose rather than keypoints; expected fpdm, cfld or qen. For MCLD "
                             "give the frames as one batch of DENSEPOSE to MCLD Multi-Focal Embedding, as the workflow "
                             "mcld_walk_around does")
        config = method.checkpoint.method.config
        encode_source, _ = sequence_encoders(method.checkpoint.meta.method)
        photo = rgb(source, "the source IMAGE")
        if len(photo) != 1:
            raise ValueError(f"{len(photo)} sources for one sequence; expected one. Choose it with Image From Batch")
        poses = shown_poses(*followed_frames(pose, person), empty_frames, draws_hands(method))
        warn_of_limits(method, poses)
        if not hasattr(config, "photo_size"):  # methods with one squash photos themselves, as their training did
            photo = resized(photo, config.image_size)
        with torch.no_grad():
            read = encode_source(method.checkpoint.method, photo * 2 - 1, method.load())
        check_prediction(model, method.checkpoint.meta, method.name)
        chunk = chunk or chunk_that_fits(model, config.latent_size, len(poses))
        held, shape = strength_on(model) > 0, (4, *config.latent_size)
        carried = carried_along(poses, densepose, config.latent_size) if noise == BODY else None
        start = start_noise(seed, range(len(poses)) if noise == OWN else [0] * len(poses), shape, carried)
        sigmas = comfy.samplers.KSampler(model, steps, model.load_device, sampler_name, scheduler, 1.0,
                                         model.model_options).sigmas
        guider, latents = None, []
        progress = Progress(model, len(poses), sigmas)
        for first in range(0, len(poses), chunk):
            comfy.model_management.throw_exception_if_processing_interrupted()
            again = int(held and first > 0)   # the first frame, which the others see
            frames = [0] * again + list(range(first, min(first + chunk, len(poses))))
            cond = encoded_chunk(method, read, [poses[number] for number in frames])
            terms = cond.guidance().terms
            chain = Guidance((terms[0], replace(terms[-1], weight=cfg, minus=None)))
            rows = harmonise([term.injections for term in chain.terms], cond.batch)
            if guider is None:  # all chunks patch the same sites, so the MODEL is patched once
                guider = ChainGuider(apply_injections(model, rows, method.checkpoint.unet_weights, method.name,
                                                      method.origin.digest))
            guider.set_chain(chain, conditionings(rows, cond.latent_size, method.origin))
            drawn = StepNoise(seed, frames if noise == OWN else [0] * len(frames), shape,
                              None if carried is None else carried.frames(frames))
            sampler = with_step_noise(sampler_name, drawn, sigmas)
            made = guider.sample(start[frames], torch.zeros_like(start[frames]), sampler, sigmas, callback=progress.step,
                                 disable_pbar=True, seed=seed)
            latents.append(made[again:].to(comfy.model_management.intermediate_device()))
            progress.frames += cond.batch - again
        return io.NodeOutput({"samples": torch.cat(latents)})


def carried_along(poses: list, densepose, size: tuple[int, int]) -> Carried:
    """What carries the noise of latents of (h, w) along the frames. Raises ValueError for another number of DENSEPOSE."""
    if densepose is None:
        picture = tuple(side * VAE_STRIDE for side in size)
        return carried_by((surface_of_pose(pose, picture) for pose in watched(poses)), size)
    surfaces = checked_densepose(densepose)
    if len(surfaces) != len(poses):
        raise ValueError(f"{len(surfaces)} DENSEPOSE for {len(poses)} frames; expected one for each. Connect that of the "
                         "same frames, or none")
    return carried_by(watched(surfaces), size)


def encoded_chunk(method, read, poses: list) -> Cond:
    """A source that was read, with some poses -> PGPIS_COND."""
    module = method.checkpoint.method
    _, encode_poses = sequence_encoders(method.checkpoint.meta.method)
    device = method.load()  # sampling the chunk before may have moved the encoders out
    with torch.no_grad():
        return Cond(method, on_cpu(encode_poses(module, read, poses, device)), len(poses), module.config.latent_size)


def chunk_that_fits(model, latent_size: tuple[int, int], frames: int, terms: int = 2) -> int:
    """How many frames to sample at once: a power of two whose terms fit into the free memory as one batch, by the host's own
    estimate, and no more than LARGEST_CHUNK."""
    free = comfy.model_management.get_free_memory(model.load_device) - max(0, model.model_size() - model.loaded_size())
    chunk = LARGEST_CHUNK
    while chunk > 1 and (chunk >= 2 * frames or
                         MEMORY_MARGIN * model.memory_required([terms * chunk, 4, *latent_size]) > free):
        chunk //= 2
    return chunk


class Progress:
    """One progress bar over all chunks, with a preview of the first frame of the current one."""

    def __init__(self, model, total: int, sigmas: Tensor) -> None:
        self.frames, self.steps = 0, max(1, len(sigmas) - 1)
        self.bar = comfy.utils.ProgressBar(total * self.steps)
        self.previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)

    def step(self, step: int, x0: Tensor, x: Tensor, _total: int) -> None:
        preview = self.previewer.decode_latent_to_preview_image("JPEG", x0) if self.previewer else None
        self.bar.update_absolute(self.frames * self.steps + (step + 1) * len(x0), None, preview)


NODES = [PoseSequenceSampler]
