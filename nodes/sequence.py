"""The node that makes the frames of a sequence: one source, many poses, a few at a time."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from comfy.k_diffusion.sampling import BrownianTreeNoiseSampler, default_noise_sampler
from comfy_api.latest import io
from torch import Tensor

from ..pgpis_models.methods import sequence_encoders
from ..pgpis_models.poses.formats import EMPTY
from ..pgpis_models.unet.guidance import Guidance
from ..pgpis_models.unet.injections import harmonise
from .binding.guider import ChainGuider
from .binding.model import apply_injections, conditionings
from .binding.weights import check_prediction
from .embedding import PERSON_TOOLTIP, draws_hands, shown_poses, warn_of_limits
from .fusion import EMPTY_TOOLTIP
from .inputs import resized, rgb
from .schema import ADVANCED, aliases
from .types import Cond, MethodType, PoseKeypointType, on_cpu

SAME, OWN = "same for all frames", "new for each frame"
LARGEST_CHUNK = 16   # frames at once; more gain no speed
FRAME_STRIDE = 1_000_003   # between the seeds of two frames' step noise
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
                        "the MODEL keep working. Decode with VAE Decode, show with Save Animated WEBP.",
            inputs=[io.Model.Input("model", tooltip="The base model that the checkpoint was trained on, or a finetune or "
                                   "LoRA of it."),
                    MethodType.Input("method", tooltip="A checkpoint from Load PGPIS Checkpoint: FPDM, CFLD or QEN (MCLD "
                                     "takes DensePose rather than keypoints)."),
                    io.Image.Input("source", tooltip="One photo of the person."),
                    PoseKeypointType.Input("pose", tooltip="The frames, in order."),
                    io.Int.Input("person", default=-1, min=-1, max=99, tooltip=PERSON_TOOLTIP),
                    io.Combo.Input("empty_frames", options=list(EMPTY), default="hold", tooltip=EMPTY_TOOLTIP),
                    io.Int.Input("seed", default=0, min=0, max=0xffffffffffffffff, control_after_generate=True,
                                 tooltip="Seed of the noise."),
                    io.Combo.Input("noise", options=[SAME, OWN], default=SAME, tooltip="Noise of the start, and of "
                                   "the steps of samplers that add some (ancestral, SDE and others). Same: what the pose "
                                   "leaves open stays the same from frame to frame. New: each frame has its own."),
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
                                 "result (dpm_adaptive excepted, which chooses its steps by the frames of a chunk).")],
            outputs=[io.Latent.Output(display_name="latent", tooltip="One latent per frame, in order.")])

    @classmethod
    def execute(cls, model, method, source, pose, person, empty_frames, seed, noise, steps, cfg, sampler_name, scheduler,
                chunk) -> io.NodeOutput:
        config = method.checkpoint.method.config
        encode_source, _ = sequence_encoders(method.checkpoint.meta.method)
        photo = rgb(source, "the source IMAGE")
        if len(photo) != 1:
            raise ValueError(f"{len(photo)} sources for one sequence; expected one. Choose it with Image From Batch")
        poses = shown_poses(pose, person, empty_frames, draws_hands(method))
        warn_of_limits(method, poses)
        if not hasattr(config, "photo_size"):  # methods with one squash photos themselves, as their training did
            photo = resized(photo, config.image_size)
        with torch.no_grad():
            read = encode_source(method.checkpoint.method, photo * 2 - 1, method.load())
        check_prediction(model, method.checkpoint.meta, method.name)
        chunk = chunk or chunk_that_fits(model, config.latent_size, len(poses))
        empty = torch.zeros(1 if noise == SAME else len(poses), 4, *config.latent_size)
        start = comfy.sample.prepare_noise(empty, seed).expand(len(poses), -1, -1, -1)
        sigmas = comfy.samplers.KSampler(model, steps, model.load_device, sampler_name, scheduler, 1.0,
                                         model.model_options).sigmas
        guider, latents = None, []
        progress = Progress(model, len(poses), sigmas)
        for first in range(0, len(poses), chunk):
            comfy.model_management.throw_exception_if_processing_interrupted()
            frames = slice(first, first + chunk)
            cond = encoded_chunk(method, read, poses[frames])
            terms = cond.guidance().terms
            chain = Guidance((terms[0], replace(terms[-1], weight=cfg, minus=None)))
            rows = harmonise([term.injections for term in chain.terms], cond.batch)
            if guider is None:  # all chunks patch the same sites, so the MODEL is patched once
                guider = ChainGuider(apply_injections(model, rows, method.checkpoint.unet_weights, method.name,
                                                      method.origin.digest))
            guider.set_chain(chain, conditionings(rows, cond.latent_size, method.origin))
            drawn = FrameNoise(seed, first, cond.batch, start.shape[1:], noise == SAME)
            sampler = with_frame_noise(sampler_name, drawn, sigmas)
            made = guider.sample(start[frames], torch.zeros_like(start[frames]), sampler, sigmas, callback=progress.step,
                                 disable_pbar=True, seed=seed)
            latents.append(made.to(comfy.model_management.intermediate_device()))
            progress.frames += cond.batch
        return io.NodeOutput({"samples": torch.cat(latents)})


def with_frame_noise(name: str, noise: FrameNoise, sigmas: Tensor):
    """The host's sampler; one that adds noise at its steps draws it frame by frame, so that it depends on the frame's number
    and not on the chunk that it is made in. sigmas: of the run."""
    sampler = comfy.samplers.sampler_object(name)
    function = getattr(sampler, "sampler_function", None)   # other packs may bring samplers of other kinds
    if function and "noise_sampler" in inspect.signature(function).parameters:
        if name.startswith("dpmpp") and "_sde" in name:   # those ask for noise between two levels, a path rather than draws
            noise.brownian(sigmas, cpu=not name.endswith("_gpu"))
        sampler.extra_options = {**sampler.extra_options, "noise_sampler": noise}
    return sampler


class FrameNoise:
    """Noise of the sampling steps of `count` frames from number `first` on, each (4, h, w); called as the host's samplers
    call theirs. One frame, or all with `same`, gets what KSampler draws for one picture of this seed."""

    def __init__(self, seed: int, first: int, count: int, shape: tuple[int, ...], same: bool) -> None:
        self.shape, self.count = tuple(shape), count
        numbers = [0] if same else range(first, first + count)
        self.seeds = [(seed + number * FRAME_STRIDE) % (2 ** 64 - 1) for number in numbers]
        self.frames: list[Callable] = []
        self.source: Callable = default_noise_sampler   # the host's own, whose seeding differs between versions

    def brownian(self, sigmas: Tensor, cpu: bool) -> None:
        """Takes the noise from Brownian paths between the levels of a run, as the host's SDE samplers do. cpu: whether they
        are drawn there."""
        above = sigmas[sigmas > 0]
        self.source = partial(BrownianTreeNoiseSampler, sigma_min=above.min(), sigma_max=above.max(), cpu=cpu)

    def __call__(self, sigma: Tensor, sigma_next: Tensor) -> Tensor:
        if not self.frames:   # the device is known now
            one = torch.zeros(1, *self.shape, device=sigma.device)
            self.frames = [self.source(one, seed=seed) for seed in self.seeds]
        drawn = torch.cat([draw(sigma, sigma_next) for draw in self.frames])
        return drawn.expand(self.count, *self.shape)


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
